"""Preview images during a run: fixed prompts, fixed noise, averaged weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import samplers
from janusflow.models import latents as coding
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.janusflow.processing import JanusFlowProcessor
from janusflow.models.prompt_cache import PromptCache
from janusflow.training.ema import State
from janusflow.training.encoding import latents_of
from janusflow.training.rollouts import evaluating
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
        inputs = self.processor.prompt(list(self.prompts)).to(place)
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        cond, uncond = (model.encode_prompt(ids, mask, unconditional=u) for u in (False, True))
        both = PromptCache.cat([cond, uncond])
        pair = samplers.guidance.batched_pair(_field(model, both), _field(model, cond))
        v = samplers.guide(pair, GUIDANCE)
        found = samplers.sample(v, self._noise().to(place), STEPS, "euler")
        pixels = coding.decode(self.vae, found).clamp(-1, 1)
        bytes_ = ((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        return [Image.fromarray(one) for one in bytes_]

    def _noise(self) -> Tensor:
        side = self.processor.image_processor.image_size
        shape = latents_of(self.vae, torch.zeros(1, 3, side, side)).shape[1:]
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(len(self.prompts), *shape, generator=generator)


def _field(model: JanusFlowModel, prompt: PromptCache):
    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return model.velocity(x, torch.full((len(x),), float(t), device=x.device), prompt)

    return velocity


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
