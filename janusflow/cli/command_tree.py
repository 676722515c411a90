"""The tree of commands: every command with its name and group."""

from typing import Annotated

import typer

from janusflow.cli.command import HELP, Group
from janusflow.cli.commands import bench, listings
from janusflow.cli.commands.assemble import assemble
from janusflow.cli.commands.chat import chat
from janusflow.cli.commands.convert import convert
from janusflow.cli.commands.data import data
from janusflow.cli.commands.demo import demo
from janusflow.cli.commands.distill import distill
from janusflow.cli.commands.doctor import doctor
from janusflow.cli.commands.edit import edit
from janusflow.cli.commands.evaluate import evaluate
from janusflow.cli.commands.generate import generate
from janusflow.cli.commands.info import info
from janusflow.cli.commands.pairs import pairs
from janusflow.cli.commands.pilot import pilot
from janusflow.cli.commands.precompute import precompute
from janusflow.cli.commands.reproduce import reproduce
from janusflow.cli.commands.reward import reward
from janusflow.cli.commands.serve import serve
from janusflow.cli.commands.show import show
from janusflow.cli.commands.train import train
from janusflow.utils.version import VERSION

app = typer.Typer(
    name="janusflow",
    help="Generates images from text and answers questions about images with one "
    "rectified-flow model.",
    cls=Group,
    context_settings=HELP,
    pretty_exceptions_enable=False,
)
COMMANDS = (
    (generate, chat, edit, demo, serve),
    (info, doctor, *listings.COMMANDS),
    (train, reward, distill, pairs, precompute, show, assemble, convert, data),
    (evaluate, reproduce, pilot),
)


def _tell_version(asked: bool) -> None:
    if asked:
        print(f"janusflow {VERSION}")
        raise typer.Exit()


@app.callback()
def _top(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_tell_version, help="Shows the version and exits."
        ),
    ] = False,
) -> None:
    pass


for group in COMMANDS:
    for registered in group:
        registered.mount(app)
app.add_typer(bench.app, name="bench", rich_help_panel="Measuring")
