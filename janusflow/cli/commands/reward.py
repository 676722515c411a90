"""`janusflow reward`: post-training of a model on rewards of its own images."""

from dataclasses import dataclass

from janusflow.cli import shared_options as o
from janusflow.cli import training_runs
from janusflow.cli.command import command


@dataclass(frozen=True, kw_only=True)
class Options(training_runs.WorldRun):
    """The options of `janusflow reward`."""

    model: o.ModelName
    reward: str | None = training_runs.RUN.option(
        "Trains on this reward or weighted sum of rewards. The default is '0.65*strict + "
        "0.35*lenient'.",
        autocompletion=o.names.rewards,
    )
    objective: str = training_runs.RUN.option(
        "Trains with this algorithm: nft, grpo, awm, best_of_n or dpo.",
        default="nft",
        autocompletion=o.names.objectives,
    )


@command("reward", panel="Training and files", plugins=True)
def reward(options: Options) -> dict:
    """Trains a model of coloured shapes on rewards of the images that it generates.

    Each step generates several images for each of some prompts, scores them, and moves the model
    towards the better ones. An interrupted run resumes from its last checkpoint.
    """
    with training_runs.training_libraries():
        from janusflow.training.rewards import reward_job
        from janusflow.training.rewards.prompts import shares_of

    changes = training_runs.begin(options)
    named = (options.reward, options.objective)
    how = (changes, options.init_from, shares_of(options.categories))
    plan = reward_job.plan(options.model, options.out, *named, *how)
    return training_runs.end(options, plan.run())
