"""Loads either family of models; config.json says which pipeline to use."""

from pathlib import Path

import torch

from janusflow.models.family import FLOW, family
from janusflow.utils.hub import KEYWORDS
from janusflow.utils.keywords import refuse_unknown

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
