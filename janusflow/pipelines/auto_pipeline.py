"""Loads either family of models; config.json says which pipeline to use."""

from pathlib import Path

import torch

from janusflow.models import published_configs
from janusflow.utils.hub import CONFIGS, KEYWORDS, locate
from janusflow.utils.keywords import refuse_unknown
from janusflow.utils.safe_io import read_object

FLOW, PRO = "JanusFlow", "Janus-Pro"
PARTS = ("model", "processor")  # that may be given


def load(
    name: str | Path,
    dtype: torch.dtype | str | None = None,
    vae=None,
    quantization_config=None,
    **given,
):
    """Returns a `JanusFlowPipeline` or a `JanusProPipeline`, depending on the configuration.

    `name` is a packaged model, a folder or a hub id; `vae` names JanusFlow's autoencoder if the
    folder has none; `quantization_config` is transformers' (for JanusFlow), such as `eight_bit()`.
    Other keywords are those of the pipeline's `from_pretrained`. Raises ValueError for any other
    model and TypeError for an unknown keyword.
    """
    from janusflow.pipelines.base import LOADING

    refuse_unknown("load", given, [*LOADING, "vae", "quantization_config", *PARTS])
    where = {key: given[key] for key in KEYWORDS if key in given}
    if family(name, **where) == FLOW:
        from janusflow.pipelines.pipeline_janusflow import JanusFlowPipeline

        return JanusFlowPipeline.from_pretrained(
            name, vae=vae, dtype=dtype, quantization_config=quantization_config, **given
        )
    from janusflow.pipelines.pipeline_janus_pro import JanusProPipeline

    if vae is not None:
        raise ValueError("Janus-Pro brings its own VQ model; leave the autoencoder out")
    if quantization_config is not None:
        raise ValueError("8-bit weights are for JanusFlow; choose another dtype for Janus-Pro")
    return JanusProPipeline.from_pretrained(name, dtype=dtype, **given)


def eight_bit():
    """Returns transformers' configuration for 8-bit weights by torchao, with one scale per row.

    Raises ImportError without torchao.
    """
    from transformers import TorchAoConfig

    try:
        from torchao.quantization import Int8WeightOnlyConfig
    except ImportError as error:
        raise ImportError("8-bit weights need torchao; pip install torchao") from error
    return TorchAoConfig(Int8WeightOnlyConfig(version=2))


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
