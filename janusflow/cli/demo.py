"""`janusflow demo`."""

from __future__ import annotations

from typing import Annotated

import typer


def demo(
    model: Annotated[str, typer.Option(help="Packaged model, folder or hub id.")] = (
        "janusflow/scenes"
    ),
    vae: Annotated[
        str | None, typer.Option(help="Autoencoder, if the model's folder has no vae/.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address; others can reach 0.0.0.0.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes the first free one from 7860.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps, ...")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
) -> None:
    """Opens a page to paint, compare and ask, on this machine."""
    from janusflow.demo import server
    from janusflow.pipelines import image_io

    if not 0 <= port < 65_536:
        raise ValueError(f"--port is {port}; expected a number from 0 to 65535")
    server.start(image_io.load(model, vae, device, dtype), model, host, port)
