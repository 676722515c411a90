"""`janusflow serve`: serves a model with OpenAI's API."""

from dataclasses import dataclass
from pathlib import Path

from janusflow.cli import shared_options as o
from janusflow.cli.command import command
from janusflow.cli.shared_options import Panel
from janusflow.cli.terminal import importing
from janusflow.utils import limits
from janusflow.utils.packaged import PACKAGED

SERVER, ACCESS = Panel("Server"), Panel("Access")


@dataclass(frozen=True, kw_only=True)
class Options(o.AdapterOptions):
    """The options of `janusflow serve`."""

    model: o.ModelName = o.DEFAULT
    host: str = SERVER.option(
        "Listens on this address; 0.0.0.0 lets other machines in.", default="127.0.0.1"
    )
    port: int = SERVER.option("Listens on this port; 0 takes any free port.", default=8000)
    name: str | None = SERVER.option(
        "Offers the model to clients under this name. The default is its hub id or its "
        "folder's name."
    )
    queue: int = SERVER.option(
        "Accepts this many waiting or running requests; further ones get status 429.", default=16
    )
    max_body: int = SERVER.option("Refuses requests larger than this many megabytes.", default=16)
    api_key: str | None = ACCESS.option(
        "Requires this API key from clients. By default no key is required.",
        envvar="JANUSFLOW_API_KEY",
    )
    allow_host: list[str] = ACCESS.option(
        "Accepts requests to this additional host name of the server; repeat for several.",
        default=[],
    )
    allow_origin: list[str] = ACCESS.option(
        "Allows web pages of this origin, such as https://example.org, to send requests "
        "(CORS); repeat for several.",
        default=[],
    )


@command("serve", panel="Images and answers", json=False)
def serve(options: Options) -> None:
    """Serves a model with OpenAI's API: images, edits, and chat about images."""
    with importing():
        from janusflow.cli import load_model
        from janusflow.serve import server

    check(options.port, options.queue, options.max_body, options.api_key)
    server.check_names(options.allow_host, options.allow_origin)
    server.check_installed()
    server.listen(options.host, options.port).close()  # before the model is loaded
    pipe = load_model.load(options, options.lora)
    try:
        server.start(
            pipe,
            options.name or known_as(options.model),
            options.host,
            options.port,
            options.queue,
            hosts=options.allow_host,
            origins=options.allow_origin,
            key=options.api_key or None,
            max_body=options.max_body * server.MEGABYTE,
        )
    except KeyboardInterrupt as stop:
        stop.nothing_kept = True
        raise


def known_as(model: str) -> str:
    """Returns the name under which clients see a model; of a folder's path only the last part."""
    path = Path(model)
    own = model not in PACKAGED and path.is_dir()
    return path.resolve().name if own else model


def check(port: int, queue: int, max_body: int, api_key: str | None) -> None:
    """Raises ValueError for numbers out of range."""
    limits.within("--port", port, 0, 65_535)
    limits.within("--queue", queue, 1, 10_000)
    limits.within("--max-body", max_body, 1, 1_024)
    if api_key is not None and not (api_key.isascii() and api_key.strip() == api_key != ""):
        raise ValueError(
            "--api-key is empty, or holds spaces or letters outside ASCII; choose ASCII text "
            "without spaces"
        )
