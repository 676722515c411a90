"""Every command in its place; nothing else."""

from __future__ import annotations

from typing import Annotated

import typer

from janusflow.cli import bench, listings
from janusflow.cli.assemble import assemble
from janusflow.cli.chat import chat
from janusflow.cli.command import HELP, Group
from janusflow.cli.convert import convert
from janusflow.cli.data import data
from janusflow.cli.demo import demo
from janusflow.cli.distill import distill
from janusflow.cli.doctor import doctor
from janusflow.cli.edit import edit
from janusflow.cli.evaluate import evaluate
from janusflow.cli.generate import generate
from janusflow.cli.info import info
from janusflow.cli.pairs import pairs
from janusflow.cli.pilot import pilot
from janusflow.cli.precompute import precompute
from janusflow.cli.reward import reward
from janusflow.cli.serve import serve
from janusflow.cli.show import show
from janusflow.cli.train import train
from janusflow.utils.version import VERSION

app = typer.Typer(
    name="janusflow",
    help="Images from text and answers about images, from one rectified-flow model.",
    cls=Group,
    context_settings=HELP,
    pretty_exceptions_enable=False,
)
COMMANDS = (
    (generate, chat, edit, demo, serve),
    (info, doctor, *listings.COMMANDS),
    (train, reward, distill, pairs, precompute, show, assemble, convert, data),
    (evaluate, pilot),
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
