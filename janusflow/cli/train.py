"""`janusflow train`: a recipe of the small world, or a stage of the paper on data of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")],
    recipe: Annotated[str | None, typer.Option(help="A recipe of the small world.")] = None,
    stage: Annotated[str | None, typer.Option(help="Of the paper: 1, 2 or 3; or tune.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Model that a stage begins with; janusflow/scenes.")
    ] = None,
    vae: Annotated[str | None, typer.Option(help="Autoencoder, if the model has no vae/.")] = None,
    data: Annotated[
        list[Path], typer.Option(help="Folder, .jsonl, .parquet, .tar or .txt; repeat for several.")
    ] = [],  # noqa: B006
    cache: Annotated[Path | None, typer.Option(help="What precompute wrote; data.cache.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML of settings, under --set.")] = None,
    set_: Annotated[list[str], typer.Option("--set", help="As in training.lr=2e-5.")] = [],  # noqa: B006
    start: Annotated[
        Path | None,
        typer.Option(
            "--init-from", "--start", help="Run, or model, whose averaged weights to begin with."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in --out.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    export: Annotated[Path | None, typer.Option(help="Write the averaged model here.")] = None,
    export_dtype: Annotated[
        str, typer.Option(help="Of --export: bfloat16, or float32 to train on from there.")
    ] = "bfloat16",
    best: Annotated[
        bool, typer.Option("--best", help="--export the best state, by run.keep_best.")
    ] = False,
    merge: Annotated[
        bool, typer.Option("--merge", help="Write the newest checkpoint's shards as one file.")
    ] = False,
    threads: Annotated[int | None, typer.Option(help="Of torch; all cores unless told.")] = None,
) -> dict:
    """Trains: a recipe from nothing, or a stage on pictures and texts of your own.

    The stage `tune` is for a few pictures; `--set adapter.rank=8` trains an adapter only. A run
    that was cut off goes on where its last checkpoint stands.
    """
    from janusflow.utils.devices import DTYPES, use_threads

    try:
        from janusflow.training import config as settings
        from janusflow.training import job, loop
    except ModuleNotFoundError as error:
        needs = f"training needs {error.name}: pip install 'janusflow[train]'"
        raise ModuleNotFoundError(needs, name=error.name) from error

    use_threads(threads)
    if export_dtype not in DTYPES:
        raise ValueError(f"--export-dtype is {export_dtype!r}; choose one of {', '.join(DTYPES)}")
    if merge:
        from janusflow.training import checkpoints

        print(merged := checkpoints.merge(out))
        return dict(out=out, merged=merged)
    if (recipe is None) == (stage is None) and not (export and recipe is None):
        raise ValueError("give either --recipe or --stage; see janusflow train --help")
    if not resume and list(out.glob("step-*.safetensors")):
        raise ValueError(f"{out} holds checkpoints already; choose another folder or --resume")
    changes = (settings.read(config) if config else {}) | settings.parse(set_)
    changes |= {"data.cache": str(cache)} if cache else {}
    if recipe and data:
        raise ValueError("a recipe draws its own scenes; --data belongs to --stage")
    if recipe:
        plan = job.of_recipe(recipe, out, changes, start)
    elif stage is not None:
        plan = job.of_stage(stage, model, data, out, changes, start, vae)
    if recipe or stage is not None:
        if dry_run:
            print(told := plan.describe())
            return dict(out=out, plan=told)
        plan.run()
    if export:
        loop.export(out, export, DTYPES[export_dtype], model, best)
        print(export)
    return dict(out=out, export=export)
