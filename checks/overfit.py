"""Trains on a few images of coloured shapes and their questions until they are learnt by heart.

python -m checks.overfit 32 1500 OUT

The flow loss cannot fall below the variance that remains when prompt and noisy latents are known.
That is 0 for a prompt that only one image has. For shared captions, and for the tenth of the
samples without a prompt, it is the posterior's variance, which is estimated here by sampling.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from janusflow.data.samples import Sample
from janusflow.models.janusflow import packed_forward
from janusflow.scenes.world import generator
from janusflow.training import config, init_checkpoint, loop, losses
from janusflow.training.loss_module import draw
from janusflow.training.recipes import RECIPES
from janusflow.training.trainer import Trainer
from samplers import command_line

RECIPE = replace(RECIPES["scenes-smoke"], hidden=128, mlp=344, channels=96, vision_width=96)
CHANGES = {
    "alignment": "none",  # it would pull at the same weights
    "training.trainable": "vision_encoder,linear,generation,language_model",
    "training.mixture": {"generation": 1, "understanding": 1},
    "training.optimizer": "muon",
    "training.lr": 4e-3,
    "training.warmup": 20,
    "training.decay_from": 0.3,
    "training.schedule": "cosine",
}


@dataclass(frozen=True)
class Fixed:
    """The same samples in every step."""

    samples: list[Sample]

    def draw(self, *_) -> list[Sample]:
        return self.samples


def samples_of(base: Path, count: int) -> list[Sample]:
    """Returns samples of `count` scenes, each to generate and to ask about."""
    data = init_checkpoint.batches(base, RECIPE)
    made = data.images(range(count))
    asked = [
        data.answered(data.training_scene(i), made[i].pixel_values[0], generator("heart", i))
        for i in range(count)
    ]
    return [*made, *asked]


def trainer_of(base: Path, count: int, steps: int, **changes) -> Trainer:
    init_checkpoint.first_model(RECIPE, base)
    own = CHANGES | {"training.batch": 2 * count, "training.steps": steps} | changes
    chosen = config.changed(init_checkpoint.of_recipe(RECIPE), own)
    return loop.trainer_of(chosen, base, Fixed(samples_of(base, count)))


@torch.no_grad()
def measured(trainer: Trainer, draws: int = 20) -> dict[str, float]:
    """The mean flow loss over fresh noises and times, its floor, and the share of samples whose
    every answer is given word by word.
    """
    samples, stage = trainer.data.samples, trainer.settings.training
    made = [s for s in samples if s.kind == "generation"]
    model = trainer.objective.model
    flow, floor, right = 0.0, 0.0, 0.0
    for number in range(draws):
        batch = draw(stage, samples, 10**6 + number, range(len(made)), len(made), "cpu")
        x = losses.interpolate(batch.noise, batch.data, batch.t)
        out = packed_forward.forward(model, samples, x, batch.t, batch.dropped)
        flow += losses.flow(out.velocity, batch.noise, batch.data).mean().item() / draws
        best = posterior_velocity(x, batch.t, batch.data, known(made, batch.dropped))
        floor += losses.flow(best, batch.noise, batch.data).mean().item() / draws
        wrong = out.owner[out.logits.argmax(-1) != out.targets].unique()
        right += (1 - len(wrong) / out.answers) / draws
    return {"flow": flow, "floor": floor, "answers": right}


def known(made: list[Sample], dropped: Tensor) -> Tensor:
    """Returns (G, G): whether sample i's prompt leaves image j possible."""
    same = [[torch.equal(a.input_ids, b.input_ids) for b in made] for a in made]
    return torch.tensor(same) | dropped[:, None]


def posterior_velocity(x: Tensor, t: Tensor, data: Tensor, possible: Tensor) -> Tensor:
    """E[data - noise | x_t], which no predictor beats: (B, ...), with x_t = (1 - t) noise + t data
    and each possible image as likely.
    """
    flat, rows, t = x.flatten(1).double(), data.flatten(1).double(), t.double()[:, None]
    apart = (flat[:, None] - t[..., None] * rows).square().sum(dim=-1) / (1 - t).square()
    weights = (-apart / 2).masked_fill(~possible, -torch.inf).softmax(dim=1)
    return ((weights @ rows - flat) / (1 - t)).view(x.shape).float()


def main(count: int, steps: int, out: Path) -> None:
    trainer = trainer_of(out / "base", count, steps)
    first = measured(trainer, draws=2)
    print("before", json.dumps(first), flush=True)
    while trainer.state.step < steps:
        found = trainer.step()
        if trainer.state.step % 100 == 0:
            print(trainer.state.step, json.dumps(found["parts"]), flush=True)
    print("after", json.dumps(measured(trainer)))


if __name__ == "__main__":
    main(
        **command_line.positionals(
            __doc__,
            count=(int, ..., "Learns this many images."),
            steps=(int, ..., "Takes this many training steps."),
            out=(Path, ..., "Writes the initial model to this folder."),
        )
    )
