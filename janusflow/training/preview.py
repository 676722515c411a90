"""Preview images during a run: fixed prompts, fixed noise, averaged weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

import samplers
from janusflow.data.samples import Sample
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.janusflow.processing import JanusFlowProcessor
from janusflow.training.ema import State
from janusflow.training.objectives.online import shape_of
from janusflow.training.rollouts import evaluating, field, pixels_of
from janusflow.training.trainer import Trainer
from janusflow.utils import atomic_io
from janusflow.utils.images import captioned, grid

STEPS = 20  # of Euler
GUIDANCE = 2.0
COUNT = 8  # images, where no prompts are set


@dataclass
class Preview:
    """Saves a grid of samples in `samples/` of the run's folder and sends it to trackers that take
    images.

    It uses no random numbers of the training, so a run with previews is bitwise identical to one
    without.
    """

    processor: JanusFlowProcessor
    vae: nn.Module
    prompts: Sequence[str]
    seed: int = 0

    def __call__(self, trainer: Trainer, out: Path) -> Path:
        """Draws and saves the grid of the averaged weights, if `check` permits the state."""
        model, step = trainer.objective.model, trainer.state.step
        with averaged(trainer.state), evaluating(model), trainer.accelerator.autocast():
            images = self.images(model)
        path = out / "samples" / f"step-{step:08d}.png"
        path.parent.mkdir(exist_ok=True)
        sheet = grid(list(map(captioned, images, self.prompts)))
        with atomic_io.replacing(path, sync=False) as part:
            sheet.save(part, format="PNG")
        _track(trainer, sheet, step)
        return path

    @torch.no_grad()
    def images(self, model: JanusFlowModel) -> list[Image.Image]:
        """Generates one image for each prompt."""
        place = next(model.parameters()).device
        self.vae.to(place)
        rows = [self.processor.prompt(text)["input_ids"][0] for text in self.prompts]
        v = field(model, [Sample(kind="generation", input_ids=row) for row in rows], GUIDANCE)
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(len(rows), *shape_of(model, self.vae), generator=generator)
        found = samplers.sample(v, noise.to(place), STEPS, "euler")
        return [Image.fromarray(one) for one in pixels_of(self.vae, found).numpy()]


def _track(trainer: Trainer, sheet: Image.Image, step: int) -> None:
    for tracker in trainer.accelerator.trackers:
        if tracker.name == "tensorboard":
            array = np.asarray(sheet)[None]
            tracker.log_images({"samples": array}, step, dataformats="NHWC")
        elif tracker.name == "wandb":
            tracker.log_images({"samples": [sheet]}, step)


def check(state: State) -> None:
    """Raises ValueError for sharded weights, with which one process alone cannot generate."""
    if any(hasattr(x, "to_local") for x in state.ema.values()):
        raise ValueError(
            "run.sample_every needs complete weights on each device, and these are sharded; set it "
            "to 0 or train with DDP"
        )


@contextmanager
def averaged(state: State) -> Iterator[None]:
    """A context in which the model has the averaged weights."""
    weights = {name: p.data for name, p in state.parameters.items()}
    try:
        for name, p in state.parameters.items():
            p.data = state.ema.get(name, p.data)
        yield
    finally:
        for name, p in state.parameters.items():
            p.data = weights[name]
