"""What the alignment study measures of a model: flow loss on scenes never trained on, what a wrong
prompt costs, images read back by the scorer, and how near its blocks are to a vision encoder.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

import samplers
from janusflow.models import latents as coding
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.scenes.scorer import score
from janusflow.training import losses, timestep_sampling
from janusflow.training.alignment.similarity import by_block
from studies.alignment import easy_scenes
from studies.alignment.easy_scenes import KINDS
from studies.alignment.models import Lab, prompt_of


@torch.no_grad()
def measure(lab: Lab, model: JanusFlowModel, seed: int) -> dict:
    """Returns held-out flow loss by time, the cost of a wrong prompt, and the score of images."""
    return held_out(lab, model) | scene_score(lab, model, seed)


def held_out(lab: Lab, model: JanusFlowModel) -> dict:
    """Flow loss in ten parts of time on scenes never trained on, and by how much it is higher with
    the prompt of another kind; the same noises and times whenever it is called.
    """
    pool, n = lab.test, len(lab.test)
    t = (torch.arange(n) % 10 + 0.5) / 10
    noise = torch.randn(pool.latents.shape, generator=timestep_sampling.generator(0, 0, 5))
    x, none = losses.interpolate(noise, pool.latents, t), torch.zeros(n, dtype=torch.bool)

    def by_time(kinds: np.ndarray) -> Tensor:
        v = model.velocity(x, t, prompt_of(lab, model, kinds, none))
        sums, counts = losses.by_time(losses.flow(v, noise, pool.latents), t)
        return sums / counts

    right, wrong = by_time(pool.kinds), by_time(easy_scenes.other(pool.kinds))
    return {"held_out": right.tolist(), "gap": (wrong - right).tolist()}


def scene_score(lab: Lab, model: JanusFlowModel, seed: int) -> dict:
    """Returns for images of every prompt, read back by the scorer, whether they are right."""
    study = lab.study
    kinds = np.repeat(np.arange(len(KINDS)), study.images)
    noise = torch.randn(
        (len(kinds), *lab.test.latents.shape[1:]), generator=timestep_sampling.generator(seed, 0, 6)
    )
    rows = torch.zeros(len(kinds), dtype=torch.bool)
    cond, uncond = (prompt_of(lab, model, kinds, rows | drop) for drop in (False, True))

    def velocity(prompt):
        return lambda x, t: model.velocity(x, torch.full((len(x),), float(t)), prompt)

    v = samplers.guide((velocity(cond), velocity(uncond)), study.guidance)
    latents = samplers.sample(v, noise, study.calls, solver="abm")
    images = coding.decode(lab.autoencoder, latents)
    images = images.add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    scores = [score(i, easy_scenes.request(k)) for i, k in zip(images, kinds, strict=True)]
    asked = [KINDS[k][1] for k in kinds]
    colors = [[f.color for f in s.found] == [c] for s, c in zip(scores, asked, strict=True)]
    shares = {name: [getattr(s, name) for s in scores] for name in ("strict", "lenient")}
    return shares | {"color": colors}  # one object of the right colour, whatever its shape


@torch.no_grad()
def layers(lab: Lab, model: JanusFlowModel, images: int = 60, tokens: int = 8) -> list[float]:
    """Returns CKNNA of every block's tokens at t = 0.5 with the vision encoder's of the image."""
    images = min(images, len(lab.test))
    pool = replace(lab.test, objects=lab.test.objects[:images], kinds=lab.test.kinds[:images])
    clean = torch.cat([lab.encoder(p) for p in pool.pixels()])
    data, t = lab.test.latents[:images], torch.full((images,), 0.5)
    noise = torch.randn(data.shape, generator=timestep_sampling.generator(0, 0, 7))
    prompt = prompt_of(lab, model, pool.kinds, torch.zeros(images, dtype=torch.bool))
    return by_block(model, losses.interpolate(noise, data, t), t, prompt, clean, tokens)


def brief(point: dict) -> str:
    low = sum(point["held_out"][:5]) / 5
    shares = [f"{name} {np.mean(point[name]):.2f}" for name in ("strict", "lenient", "color")]
    gap = sum(point["gap"]) / len(point["gap"])
    return f"step {point['step']} held-out {low:.4f} gap {gap:.4f} {' '.join(shares)}"
