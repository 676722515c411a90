"""`janusflow assemble`: a new model from a language model, a vision encoder, an autoencoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def assemble(
    language_model: Annotated[
        str, typer.Option(help="Folder or hub id of a causal language model of transformers.")
    ],
    vision: Annotated[
        str, typer.Option(help="Folder or hub id of a vision encoder of timm or transformers.")
    ],
    vae: Annotated[str, typer.Option(help="Folder or hub id of an autoencoder of diffusers.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; new or empty.")],
    channels: Annotated[
        int | None,
        typer.Option(help="Channels of the generation encoder; 3/8 of the language model's width."),
    ] = None,
    layers: Annotated[
        int, typer.Option(help="ConvNeXt blocks of the generation encoder, and of the decoder.")
    ] = 2,
    patch: Annotated[
        int | None, typer.Option(help="Latents per token and side; so many that it has 16 pixels.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side of images in pixels; the vision encoder's own.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the weights that are new.")] = 0,
) -> dict:
    """Puts a model together that `train` then teaches to answer and to make images."""
    from janusflow.models.autoencoder_loading import locate_autoencoder
    from janusflow.models.janusflow import assembly
    from janusflow.utils.hub import locate

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {str(out)!r} is not an empty folder; choose another")
    adapters = assembly.Adapters(
        channels=channels, layers=layers, patch=patch, image_size=image_size, seed=seed
    )
    files = ["*.json", "*.safetensors"]
    parts = [locate(name, files=files) for name in (language_model, vision)]
    model = assembly.assemble(*parts, locate_autoencoder(vae), out, adapters)
    count = sum(p.numel() for p in model.parameters())
    print(f"{out}: {count:,} parameters; next: janusflow train --stage adapt --model {out}")
    return dict(model=str(out), parameters=count)
