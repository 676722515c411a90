"""Tells the families of models apart by config.json alone, without loading weights."""

from pathlib import Path

from janusflow.models import published_configs
from janusflow.utils.hub import CONFIGS, locate
from janusflow.utils.safe_io import read_object

FLOW, PRO = "JanusFlow", "Janus-Pro"


def family(name: str | Path, **hub) -> str:
    """Returns `FLOW` or `PRO`, read from config.json alone. Raises ValueError if it is neither."""
    folder = published_configs.folder(name) or locate(name, files=CONFIGS, **hub)
    path = folder / "config.json"
    config = read_object(path)
    if found := _family(config):
        return found
    kind = config.get("model_type")
    told = "says no model_type" if kind is None else f"describes {kind!r:.60}"
    raise ValueError(f"{path} {told}, neither JanusFlow nor Janus-Pro; name another folder")


def _family(config: dict) -> str | None:
    if "vision_gen_enc_config" in config:
        return FLOW
    janus = "gen_vision_config" in config or config.get("model_type") == "janus"
    return PRO if janus else None


def check_family(folder: Path, expected: str) -> None:
    """Raises ValueError for a folder of the other family."""
    path = folder / "config.json"
    found = _family(read_object(path)) if path.is_file() else None
    if found not in (None, expected):
        raise ValueError(
            f"{str(folder)!r} holds a {found} and this pipeline loads a {expected}; load it by "
            "janusflow.load, which takes both"
        )


def side(name: str | Path, **hub) -> int:
    """Returns an image's side in pixels, from config.json alone."""
    path = locate(name, files=CONFIGS, **hub) / "config.json"
    config = read_object(path)
    if config.get("model_type") == "janus":
        return config["vision_config"].get("image_size", 384)
    from janusflow.models.janusflow.configuration import vision_sizes

    where = "vision_und_enc_config" if "vision_und_enc_config" in config else "vision_config"
    return vision_sizes(config.get(where), where).image_size
