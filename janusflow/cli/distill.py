"""`janusflow distill`: a model's images in one, two and four evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def distill(
    model: Annotated[str, typer.Argument(help="Packaged model, folder or hub id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")],
    pairs: Annotated[
        Path | None, typer.Option(help="Folder of janusflow pairs: reflow on them instead.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML of settings, under --set.")] = None,
    set_: Annotated[list[str], typer.Option("--set", help="As in training.lr=2e-4.")] = [],  # noqa: B006
    init_from: Annotated[
        Path | None, typer.Option(help="Run whose weights to begin with, not its optimizer.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in --out.")] = True,
    export: Annotated[Path | None, typer.Option(help="Write the averaged model here.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of torch; all cores unless told.")] = None,
) -> dict:
    """Trains a model of the small world as a flow map of its own guided trajectories.

    The result draws in one, two or four evaluations. With --pairs its flow becomes straighter
    instead (reflow). A run that was cut off is resumed from its last checkpoint.
    """
    from janusflow.utils.devices import use_threads

    try:
        from janusflow.training import config as settings
        from janusflow.training import distillation, loop
    except ModuleNotFoundError as error:
        needs = f"training needs {error.name}: pip install 'janusflow[train]'"
        raise ModuleNotFoundError(needs, name=error.name) from error

    use_threads(threads)
    if not resume and list(out.glob("step-*.safetensors")):
        raise ValueError(f"{out} holds checkpoints already; choose another folder or --resume")
    changes = (settings.read(config) if config else {}) | settings.parse(set_)
    distillation.plan(model, out, changes, init_from, made=pairs).run()
    if export:
        loop.export(out, export)
        print(export)
    return dict(out=out, export=export)
