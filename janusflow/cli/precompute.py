"""`janusflow precompute`: latents and the teacher's features of all pictures, once, to disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def precompute(
    data: Annotated[list[Path], typer.Option(help="As of train; repeat for several.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the cache.")],
    model: Annotated[str, typer.Option(help="Whose training it is for.")] = "janusflow/scenes",
    vae: Annotated[str | None, typer.Option(help="Autoencoder, if the model has no vae/.")] = None,
    teacher: Annotated[str, typer.Option(help="own, timm:NAME, or none.")] = "own",
    weights: Annotated[str, typer.Option(help="Of a timm teacher: hub or .safetensors.")] = "hub",
    size: Annotated[
        int | None, typer.Option(help="Pixels that a timm teacher sees; its own unless told.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="In which features are kept.")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    limit: Annotated[int, typer.Option(help="Pictures that may be unreadable.")] = 100,
) -> dict:
    """Computes what `janusflow train --cache` then only reads. Goes on where it was cut off."""
    try:
        from janusflow.training import precompute
    except ModuleNotFoundError as error:
        needs = f"precompute needs {error.name}: pip install 'janusflow[train]'"
        raise ModuleNotFoundError(needs, name=error.name) from error

    encoders = precompute.load(model, vae, teacher, weights, device, dtype, size)
    done = precompute.precompute(data, encoders, out, limit)
    print(done)
    return {"out": out, "result": done}
