"""`janusflow distill`: distils a model to one, two and four network evaluations per image."""

from dataclasses import dataclass
from pathlib import Path

from janusflow.cli import shared_options as o
from janusflow.cli import training_runs
from janusflow.cli.command import command


@dataclass(frozen=True, kw_only=True)
class Options(training_runs.WorldRun):
    """The options of `janusflow distill`."""

    model: o.ModelName
    pairs: Path | None = training_runs.RUN.path(
        "Trains by reflow on the pairs in this folder, written by `janusflow pairs`, instead "
        "of distilling."
    )
    student: str | None = training_runs.RUN.option(
        "Starts from this model's weights instead of the teacher's, such as janusflow/scenes-few.",
        autocompletion=o.names.models,
    )


@command("distill", panel="Training and files", plugins=True)
def distill(options: Options) -> dict:
    """Trains a model of coloured shapes as a flow map of its own guided trajectories.

    The result generates images in one, two or four network evaluations. With --pairs the model's
    flow is straightened instead (reflow). An interrupted run resumes from its last checkpoint.
    """
    with training_runs.training_libraries():
        from janusflow.training import distillation
        from janusflow.training.rewards.prompts import shares_of

    changes = training_runs.begin(options)
    place = (options.model, options.out)
    how = (changes, options.init_from, shares_of(options.categories))
    plan = distillation.plan(*place, *how, options.pairs, options.student)
    return training_runs.end(options, plan.run())
