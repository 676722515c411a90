"""`janusflow convert`: converts Janus and Janus-Pro from the published layout to transformers'."""

from dataclasses import dataclass

from janusflow.cli import names
from janusflow.cli.command import command
from janusflow.cli.save_images import check_folder, check_new
from janusflow.cli.shared_options import OUTPUT, NewModel, argument
from janusflow.cli.terminal import importing


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `janusflow convert`."""

    model: str = argument(
        "Converts this Janus or Janus-Pro, given by its folder or hub id.",
        autocompletion=names.models,
    )
    out: NewModel
    dtype: str = OUTPUT.option(
        "Stores the weights as float32 (fp32), bfloat16 (bf16) or float16 (fp16).",
        default="bfloat16",
        autocompletion=names.dtypes,
    )


@command("convert", panel="Training and files")
def convert(options: Options) -> dict:
    """Converts a Janus or Janus-Pro to transformers' layout, in safetensors."""
    with importing():
        import torch

        from janusflow.models.family import FLOW, family
        from janusflow.pipelines.pipeline_janus_pro import JanusProPipeline
        from janusflow.utils.devices import pick_dtype

    out = options.out
    if options.dtype in ("auto", "int8"):
        raise ValueError(f"--dtype is {options.dtype!r}; choose float32, bfloat16 or float16")
    dtype = pick_dtype(options.dtype, torch.device("cpu"))
    check_new(out)
    check_folder(out.parent)
    if family(options.model) == FLOW:
        raise ValueError(
            f"{options.model} is a JanusFlow, whose layout transformers reads as it is; convert "
            "takes a Janus or Janus-Pro"
        )
    JanusProPipeline.from_pretrained(options.model, dtype=dtype).save_pretrained(out)
    files = sorted(out.iterdir())
    print(*files, sep="\n")
    return dict(files=files)
