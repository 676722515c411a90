"""`janusflow reward`: post-training of a model on what its own images are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def reward(
    model: Annotated[str, typer.Argument(help="Packaged model, folder or hub id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")],
    reward: Annotated[
        str | None,
        typer.Option(help="A reward or a sum of them; '0.65*strict + 0.35*lenient' unless given."),
    ] = None,
    objective: Annotated[str, typer.Option(help="The algorithm, such as nft.")] = "nft",
    config: Annotated[Path | None, typer.Option(help="YAML of settings, under --set.")] = None,
    set_: Annotated[list[str], typer.Option("--set", help="As in training.lr=2e-5.")] = [],  # noqa: B006
    init_from: Annotated[
        Path | None, typer.Option(help="Run whose weights to begin with, not its optimizer.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in --out.")] = True,
    export: Annotated[Path | None, typer.Option(help="Write the averaged model here.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of torch; all cores unless told.")] = None,
) -> dict:
    """Trains a model of the small world on rewards of the images that it draws itself.

    Each step draws several images of each of some prompts, scores them, and moves the model towards
    the better ones. A run that was cut off is resumed from its last checkpoint.
    """
    from janusflow.utils.devices import use_threads

    try:
        from janusflow.training import config as settings
        from janusflow.training import loop
        from janusflow.training.rewards import job
    except ModuleNotFoundError as error:
        needs = f"training needs {error.name}: pip install 'janusflow[train]'"
        raise ModuleNotFoundError(needs, name=error.name) from error

    use_threads(threads)
    if not resume and list(out.glob("step-*.safetensors")):
        raise ValueError(f"{out} holds checkpoints already; choose another folder or --resume")
    changes = (settings.read(config) if config else {}) | settings.parse(set_)
    job.plan(model, out, reward, objective, changes, init_from).run()
    if export:
        loop.export(out, export)
        print(export)
    return dict(out=out, export=export)
