"""`janusflow demo`: opens the web page."""

from dataclasses import dataclass

from janusflow.cli import shared_options as o
from janusflow.cli.command import command
from janusflow.cli.shared_options import Panel
from janusflow.cli.terminal import importing
from janusflow.utils import limits

SERVER = Panel("Server")


@dataclass(frozen=True, kw_only=True)
class Options(o.Placement):
    """The options of `janusflow demo`."""

    host: str = SERVER.option(
        "Listens on this address; 0.0.0.0 lets other machines in.", default="127.0.0.1"
    )
    port: int = SERVER.option(
        "Listens on this port; 0 takes the first free port from 7860 on.", default=0
    )


@command("demo", panel="Images and answers", json=False)
def demo(options: Options) -> None:
    """Opens a web page on this machine to generate, compare, edit and ask questions about
    images.
    """
    with importing():
        from janusflow.cli import load_model
        from janusflow.demo import launch
        from janusflow.serve import server

    limits.within("--port", options.port, 0, 65_535)
    server.listen(options.host, options.port).close()  # before the model is loaded
    launch.start(load_model.load(options), options.model, options.host, options.port)
