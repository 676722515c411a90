"""Sets up post-training on rewards: a model of the scenes world, a reward, and an algorithm."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from janusflow.models.janusflow.processing import JanusFlowProcessor
from janusflow.training import config as settings
from janusflow.training import export, init_checkpoint, loop
from janusflow.training.beginning import flow_folder
from janusflow.training.build import accelerator_of
from janusflow.training.config_stages import ALL_BUT_VISION, Stage
from janusflow.training.job import TrainJob
from janusflow.training.rewards.prompts import SHARES, Prompts
from janusflow.training.trainer import Trainer

# 10 prompts of 16 images a step, and a tenth as many conversations, so that answers stay right
STAGE = Stage(
    trainable=ALL_BUT_VISION,
    lr=5e-5,
    warmup=5,
    steps=200,
    batch=176,
    mixture={"generation": 160, "understanding": 16},
    ema=0.9,
    cond_dropout=0.0,
    density_mean=-1.0,
    density_std=1.2,
)
TESTED_FROM = 100_000  # numbers of the test prompts that are watched; evaluations start at 0


def plan(
    model: str,
    out: Path,
    reward: str | None = None,
    objective: str = "nft",
    changes: Mapping[str, object] | None = None,
    start: Path | None = None,
    categories: Sequence[float] = SHARES,
) -> TrainJob:
    """Sets up the training of `model` on a reward by an online objective.

    `changes` are those of `--set`, `categories` the shares of prompts of SPLITS["train"]. Images
    are generated unguided on the model's own grid of the quality "fast", if it has one. Raises
    ValueError for an objective that generates no images.
    """
    if start is not None and export.is_model(start):
        model, start = str(start), None
    folder = flow_folder(model)
    named = {"reward": reward} if reward else {}
    own = init_checkpoint.of_objective(
        STAGE, folder, objective, 10, sampled=True, guided=False, **named
    )
    chosen = settings.changed(own, dict(changes or {}))
    if "group" not in chosen.objective:
        raise ValueError(
            f"the objective {chosen.objective['name']!r} does not learn from rewards; choose nft"
        )
    vae = init_checkpoint.autoencoder_of(folder)
    batches = init_checkpoint.batches(folder, seed=chosen.training.seed)
    data = Prompts(batches, chosen.objective["group"], categories)

    def trainer() -> Trainer:
        made = loop.trainer_of(chosen, folder, data, accelerator_of(chosen, out), vae)
        main = made.objective.main
        main.processor = JanusFlowProcessor.from_pretrained(folder)
        main.tests = data.test(main.test_prompts, TESTED_FROM)
        return made

    return TrainJob(chosen, trainer, out, {"model": str(folder), **data.told()}, start)
