"""Evaluates a run while it trains, with averaged weights and fixed noise.

It measures the flow loss on held-out samples by t, and the exact scorer's result on images of the
world of scenes. Evaluations are appended to `evaluations.jsonl`; the best state by a metric is kept
in the folder `best`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from janusflow.data.samples import Sample
from janusflow.models.janusflow.packed_forward import forward
from janusflow.scenes.batches import Batches
from janusflow.scenes.world import Scene, scene
from janusflow.training import init_checkpoint, losses, rewards, rollouts
from janusflow.training.export import BEST
from janusflow.training.preview import GUIDANCE, STEPS, averaged, check
from janusflow.training.rewards.prompts import Prompts
from janusflow.training.timestep_sampling import step_noise
from janusflow.training.trainer import Trainer

FILE = "evaluations.jsonl"
BINS = 10  # times at which the loss is taken, the middles of equal parts of [0, 1]
AT_ONCE = 32  # samples of a forward pass
METRICS = {"held_out": -1, "strict": 1}  # 1 where more is better


@dataclass(frozen=True)
class HeldOut:
    """Held-out data: `samples` with latents, and `requests` for scenes to generate and score."""

    samples: Sequence[Sample] = ()
    requests: Sequence[Sample] = ()
    vae: nn.Module | None = None
    seed: int = 0

    def __call__(self, trainer: Trainer) -> dict:
        """Returns {"held_out": mean loss, "held_out_by_time": [...], "strict": fraction of correct
        images}.

        Entries without held-out data are left out.
        """
        check(trainer.state)
        model, found = trainer.objective.model, {}
        with averaged(trainer.state), rollouts.evaluating(model), trainer.accelerator.autocast():
            if self.samples:
                by_time = self.losses(model)
                found["held_out"] = round(float(by_time.mean()), 6)
                found["held_out_by_time"] = [round(float(x), 6) for x in by_time]
            if self.requests:
                found["strict"] = self.strict(model)
        return found

    @torch.no_grad()
    def losses(self, model: nn.Module) -> Tensor:
        """Returns the samples' mean flow loss (10,) at the middle of each tenth of [0, 1]."""
        place, sums = next(model.parameters()).device, torch.zeros(BINS, dtype=torch.float64)
        for first in range(0, len(self.samples), AT_ONCE):
            part = self.samples[first : first + AT_ONCE]
            data = torch.stack([sample.latents for sample in part]).to(place)
            rows = range(first, first + len(part))
            noise = step_noise(self.seed, 0, rows, tuple(data.shape[1:])).to(place)
            for number in range(BINS):
                t = torch.full((len(part),), (number + 0.5) / BINS, device=place)
                x = losses.interpolate(noise, data, t)
                v = forward(model, part, x, t, packed=False).velocity
                sums[number] += float(losses.flow(v.float(), noise, data).sum())
        return sums / len(self.samples)

    def strict(self, model: nn.Module) -> float:
        """Returns the fraction of generated images that show exactly what their prompts ask for."""
        shape = tuple(self.samples[0].latents.shape)
        noise = step_noise(self.seed, 1, range(len(self.requests)), shape)
        ts = torch.linspace(0, 1, STEPS + 1, dtype=torch.float64)
        states = rollouts.paths(model, self.requests, noise, ts, "euler", GUIDANCE)
        pixels = rollouts.pixels_of(self.vae, states[:, -1]).numpy()
        asked = [sample.request for sample in self.requests]
        graded = rewards.Graded(pixels=pixels, requests=asked)
        return float(rewards.find("strict")(graded).mean())


@dataclass(frozen=True)
class HeldOutScenes(Batches):
    """Batches of scenes that do not occur in training."""

    def training_scene(self, index: int) -> Scene:
        return scene("test", index)


def of_world(folder: Path, count: int) -> HeldOut:
    """Returns scenes and prompts of the test split, for a model of the world of scenes."""
    known = init_checkpoint.batches(folder)
    samples = HeldOutScenes(known.tokenizer, known.autoencoder).images(range(count))
    return HeldOut(samples, Prompts(known).test(count), known.autoencoder)


def evaluate(held_out: HeldOut, trainer: Trainer, out: Path, meta: dict[str, str]) -> None:
    """Evaluates in the first process, records the numbers, and keeps the best state of all
    processes.

    The best is judged by the metric `run.keep_best`, if set.
    """
    place, metric = trainer.accelerator.device, trainer.settings.run.keep_best
    best = torch.zeros((), device=place)
    if trainer.rank == 0:
        line = {"step": trainer.state.step, **held_out(trainer)}
        before = history(out)
        with open(out / FILE, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if trainer.settings.run.trackers:
            numbers = {f"evaluation/{k}": v for k, v in line.items() if isinstance(v, float)}
            trainer.accelerator.log(numbers, step=trainer.state.step)
        if metric:
            best += float(is_best(metric, line, before))
    if metric and float(trainer.accelerator.reduce(best, "sum")):
        (out / BEST).mkdir(exist_ok=True)
        trainer.save(out / BEST, meta, keep=1)


def is_best(metric: str, line: dict, before: Sequence[dict]) -> bool:
    """Returns whether every earlier evaluation was worse. Raises ValueError for another metric."""
    if metric not in line:
        raise ValueError(
            f"run.keep_best is {metric!r}, which this run does not measure; it measures "
            f"{', '.join(k for k in METRICS if k in line)}"
        )
    sign = METRICS[metric]
    return all(sign * line[metric] > sign * one[metric] for one in before if metric in one)


def history(out: Path) -> list[dict]:
    """Returns the held-out evaluations of a run so far."""
    path = out / FILE
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
