"""Distillation to one, two and four evaluations, put together for a model of the small world."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from janusflow.models.autoencoder_loading import load_vae
from janusflow.training import config as settings
from janusflow.training import init_checkpoint, loop
from janusflow.training.config import Settings
from janusflow.training.config_stages import ALL_BUT_VISION, Stage
from janusflow.training.job import TrainJob
from janusflow.training.rewards.prompts import Prompts
from janusflow.training.trainer import Trainer, accelerator_of
from janusflow.utils.hub import FLOW_MAP, locate
from samplers import PilotGrid

STAGE = Stage(  # 48 prompts a step, and a third as many conversations
    trainable=ALL_BUT_VISION,
    lr=4e-4,
    warmup=10,
    steps=320,
    batch=64,
    mixture={"generation": 48, "understanding": 16},
    schedule="linear",
    decay_from=0.5,
    ema=0.98,
    cond_dropout=0.0,
)


def plan(
    model: str,
    out: Path,
    changes: Mapping[str, object] | None = None,
    start: Path | None = None,
    categories: tuple[float, ...] = (1, 2, 2, 1, 3, 3, 3),
) -> TrainJob:
    """Training of `model` to follow its own guided trajectories in few evaluations.

    The teacher draws on its grid of the quality "fast", with that quality's guidance, unless
    `changes` (those of `--set`) say otherwise. The export carries the times, for `pipe.flow_map`.
    """
    folder = locate(model)
    chosen = settings.changed(_defaults(folder), dict(changes or {}))
    vae = load_vae(folder, None)
    data = Prompts(init_checkpoint.batches(folder), 1, categories)

    def trainer() -> Trainer:
        made = loop.trainer_of(chosen, folder, data, accelerator_of(chosen, out), vae)
        out.mkdir(parents=True, exist_ok=True)
        told = {"times": made.objective.main.ts.tolist()}
        told["evaluations"] = list(chosen.objective["evaluations"])
        told["guidance"] = chosen.objective["guidance"]
        (out / FLOW_MAP).write_text(json.dumps(told), encoding="utf-8")
        return made

    return TrainJob(chosen, trainer, out, {"model": str(folder)}, start)


def _defaults(folder: Path) -> Settings:
    base = Settings(training=STAGE, alignment=None)
    own = {"objective.name": "flow_map", "run.save_every": 20, "run.log_every": 1}
    grid = folder / "pilot-fast.json"
    if grid.is_file():
        pilot = PilotGrid.load(grid)
        own["objective.times"] = " ".join(f"{t:.6g}" for t in pilot.ts.tolist())
        own["objective.guided_until"] = float(pilot.settings.get("guided", (0, 0.6))[1])
    return settings.changed(base, own)
