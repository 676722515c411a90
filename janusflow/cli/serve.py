"""`janusflow serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    model: Annotated[str, typer.Argument(help="Packaged model, folder or hub id.")] = (
        "janusflow/scenes"
    ),
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes a free one.")] = 8000,
    name: Annotated[
        str | None, typer.Option(help="What clients call the model; its hub id or folder's name.")
    ] = None,
    vae: Annotated[
        str | None, typer.Option(help="Autoencoder, if the model's folder has no vae/.")
    ] = None,
    lora: Annotated[str | None, typer.Option(help="Folder or hub id of an adapter.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps, ...")] = "auto",
    dtype: Annotated[
        str, typer.Option(help="auto, float32, bfloat16, float16, or int8 for 8-bit weights.")
    ] = "auto",
    queue: Annotated[
        int, typer.Option(help="Requests that may wait or run; the next get status 429.")
    ] = 16,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="JANUSFLOW_API_KEY", help="Key that clients have to send; none."),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Further name by which this server may be called.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="Origin, as https://example.org, of pages that may ask this server."),
    ] = None,
    max_body: Annotated[int, typer.Option(help="Megabytes that a request may have.")] = 16,
) -> None:
    """Serves a model by OpenAI's API: images, edits, and chat about images."""
    from janusflow.pipelines import image_io
    from janusflow.serve import server

    check(port, queue, max_body, api_key)
    server.check_installed()
    server.listen(host, port).close()  # before the model is loaded
    server.start(
        image_io.load(model, vae, device, dtype, lora),
        name or served_name(model),
        host,
        port,
        queue,
        hosts=allow_host or (),
        origins=allow_origin or (),
        key=api_key or None,
        max_body=max_body * server.MEGABYTE,
    )


def check(port: int, queue: int, max_body: int, api_key: str | None) -> None:
    """ValueError for numbers out of bounds."""
    bounds = {"--port": (port, 0, 65_535), "--queue": (queue, 1, 10_000)}
    for name, (value, low, high) in (bounds | {"--max-body": (max_body, 1, 1_024)}).items():
        if not low <= value <= high:
            raise ValueError(f"{name} is {value}; expected a number from {low} to {high}")
    if api_key is not None and not (api_key.isascii() and api_key.strip() == api_key != ""):
        raise ValueError("--api-key is empty or holds blanks or other letters; choose ASCII text")


def served_name(model: str) -> str:
    """A hub id as it is, of a folder the last name alone: paths are nobody's business."""
    return Path(model).resolve().name if Path(model).is_dir() else model
