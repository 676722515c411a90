"""`janusflow precompute`: computes latents and teacher features of all images once and stores
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from janusflow.cli import shared_options as o
from janusflow.cli.command import command
from janusflow.cli.shared_options import MODEL, OUTPUT, option, path
from janusflow.cli.terminal import importing


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `janusflow precompute`."""

    data: Annotated[
        list[Path],
        option(
            help="Reads images with captions from this path, in any format of `janusflow "
            "train --data`; repeat for several.",
            panel=OUTPUT,
            parser=path,
            metavar="PATH",
        ),
    ]
    out: Annotated[
        Path,
        option(
            "--out",
            "-o",
            help="Stores the cache in this folder.",
            panel=OUTPUT,
            parser=path,
            metavar="PATH",
        ),
    ]
    max_bad_samples: Annotated[
        int, option(help="Stops after this many unreadable images.", panel=OUTPUT)
    ] = 100
    model: o.Model = o.DEFAULT
    vae: o.Vae = None
    teacher: Annotated[
        str,
        option(
            help="Stores the features of this teacher: own (the model's vision encoder), "
            "timm:NAME, none, or a teacher of a plugin.",
            panel=MODEL,
        ),
    ] = "own"
    teacher_weights: Annotated[
        str,
        option(
            help="Loads a timm teacher's weights from this .safetensors file; the word hub "
            "downloads them from the hub.",
            panel=MODEL,
        ),
    ] = "hub"
    size: Annotated[
        int | None,
        option(
            help="Resizes images for a timm teacher to this side in pixels. The default is "
            "the teacher's own size.",
            panel=MODEL,
        ),
    ] = None
    dtype: Annotated[
        str,
        option(
            help="Stores the features in this dtype.",
            panel=MODEL,
            autocompletion=o.names.dtypes,
        ),
    ] = "float32"
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
