"""`janusflow train`: trains a recipe, or a stage of the paper on the user's data."""

from dataclasses import dataclass
from pathlib import Path

from janusflow.cli import shared_options as o
from janusflow.cli import training_runs
from janusflow.cli.command import command
from janusflow.cli.shared_options import Panel

DATA = Panel("Model and data")


@dataclass(frozen=True, kw_only=True)
class Options(training_runs.TrainingOptions):
    """The options of `janusflow train`."""

    recipe: str | None = DATA.option(
        "Trains from random weights by this recipe, such as scenes-pico, or emoji-pico with "
        "--data.",
        autocompletion=o.names.recipes,
    )
    stage: str | None = DATA.option(
        "Trains by this stage of the paper, 1, 2 or 3, or by tune, for fine-tuning on a few images."
    )
    model: str | None = DATA.option(
        "Starts a stage from this model. The default is janusflow/scenes.",
        autocompletion=o.names.models,
    )
    vae: str | None = DATA.option(
        "Takes the autoencoder from this folder or hub id, if the model has no vae/."
    )
    data: list[Path] = DATA.path(
        "Reads training data from this folder, .jsonl, .parquet, .tar or .txt file; repeat "
        "for several.",
        default=[],
    )
    cache: Path | None = DATA.path(
        "Reads latents and features from this folder of `janusflow precompute`; it sets data.cache."
    )
    best: bool = training_runs.RUN.option(
        "Exports the best state by the metric run.keep_best instead of the last state.",
        "--best",
        default=False,
    )
    merge: bool = training_runs.RUN.option(
        "Merges the newest sharded checkpoint into one file and exits.", "--merge", default=False
    )
    dry_run: bool = training_runs.RUN.option(
        "Prints what would be trained, with its cost, and exits.", "--dry-run", default=False
    )


@command("train", panel="Training and files", plugins=True)
def train(options: Options) -> dict:
    """Trains a small model from random weights (a recipe), or an existing model on your images and
    texts (a stage).

    The stage `tune` is for a few images; `--set adapter.rank=8` trains a LoRA adapter only. An
    interrupted run resumes from its last checkpoint. `janusflow show` draws its losses.
    """
    with training_runs.training_libraries():
        from janusflow.training import job as jobs  # noqa: F401 (says here what is missing)

    changes = training_runs.begin(options)
    if options.merge:
        from janusflow.training import checkpoints

        print(merged := checkpoints.merge(options.out))
        return dict(out=options.out, merged=merged)
    _check(options)
    job = _job(options, changes)
    if job is not None and options.dry_run:
        print(told := job.describe())
        return dict(out=options.out, plan=told)
    return training_runs.end(options, job and job.run(), options.model, options.best)


def _check(options: Options) -> None:
    exports_only = options.export and options.recipe is None
    if (options.recipe is None) == (options.stage is None) and not exports_only:
        raise ValueError("give either --recipe or --stage; see janusflow train --help")


def _job(options: Options, changes: dict):
    """Returns the requested run, or None if an existing one is only exported."""
    from janusflow.training import job

    changes |= {"data.cache": str(options.cache)} if options.cache else {}
    out, first = options.out, options.init_from
    if options.recipe:
        return job.of_recipe(options.recipe, out, changes, first, options.data)
    if options.stage is None:
        return None
    return job.of_stage(
        options.stage, options.model, options.data, out, changes, first, options.vae
    )
