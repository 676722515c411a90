"""`janusflow precompute`: computes latents and teacher features of all images once and stores
them.
"""

from dataclasses import dataclass
from pathlib import Path

from janusflow.cli import shared_options as o
from janusflow.cli.command import command
from janusflow.cli.shared_options import MODEL, OUTPUT, Panel
from janusflow.cli.terminal import importing

DATA = Panel("Data")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `janusflow precompute`."""

    data: list[Path] = DATA.path(
        "Reads images with captions from this path, in any format of `janusflow train "
        "--data`; repeat for several.",
        default=...,
    )
    out: Path = OUTPUT.path("Stores the cache in this folder.", "--out", "-o", default=...)
    max_bad_samples: int = DATA.option("Stops after this many unreadable images.", default=100)
    model: o.Model = o.DEFAULT
    vae: o.Vae = None
    teacher: str = MODEL.option(
        "Stores the features of this teacher: own (the model's vision encoder), timm:NAME, "
        "none, or a teacher of a plugin.",
        default="own",
    )
    teacher_weights: str = MODEL.option(
        "Loads a timm teacher's weights from this .safetensors file; the word hub downloads "
        "them from the hub.",
        default="hub",
    )
    size: int | None = MODEL.option(
        "Resizes images for a timm teacher to this side in pixels. The default is the "
        "teacher's own size."
    )
    dtype: str = MODEL.option(
        "Stores the features in this dtype.", default="float32", autocompletion=o.names.dtypes
    )
    device: o.Device = "auto"


@command("precompute", panel="Training and files", plugins=True)
def precompute(options: Options) -> dict:
    """Computes the cache that `janusflow train --cache` reads. An interrupted run resumes."""
    with importing():
        from janusflow.utils.extras import needed

        with needed("train", "precompute"):
            from janusflow.training import precompute as work

    weights = options.teacher_weights
    place = (options.model, options.vae, options.teacher, weights, options.device, options.dtype)
    done = work.precompute(
        options.data, work.load(*place, options.size), options.out, options.max_bad_samples
    )
    print(done)
    return {"out": options.out, "result": done}
