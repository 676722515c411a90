"""The config.json of each published model, packaged here so that it is available without a
download.
"""

from pathlib import Path

from transformers import PreTrainedConfig

from janusflow.utils.hub import WEIGHTS
from janusflow.utils.safe_io import read_object

FOLDER = WEIGHTS / "published"  # <name>/config.json, as the hub's folders hold them
OWNER = "deepseek-ai"


def names() -> list[str]:
    """Returns the hub ids of the models whose configuration is packaged."""
    return [f"{OWNER}/{folder.name}" for folder in sorted(FOLDER.iterdir())]


def folder(name: str | Path) -> Path | None:
    """Returns the packaged folder with a published model's config.json, and nothing else in it.

    It is None for any other name, and for a name that exists as a local folder.
    """
    owner, _, model = str(name).rpartition("/")
    known = owner == OWNER and str(name) in names() and not Path(name).is_dir()
    return FOLDER / model if known else None


def configuration(name: str | Path) -> PreTrainedConfig | None:
    """Returns a published model's JanusFlowConfig or JanusConfig, or None if it is not packaged."""
    found = folder(name)
    if found is None:
        return None
    content = read_object(found / "config.json")
    if "vision_gen_enc_config" in content:
        from janusflow.models.janusflow.configuration import JanusFlowConfig

        return JanusFlowConfig(**content)
    from janusflow.models.janus_pro import convert

    return convert.config(content, None, image_token=0)
