"""Learned fields: a small network trained on digits by flow matching, with or without guidance."""

from itertools import pairwise
from random import Random

import torch
from torch import Tensor, nn

from samplers.benchmark.field_families import digits, family, made, seeded
from samplers.benchmark.problems import Problem
from samplers.fields import batched
from samplers.guidance import guide

STEPS, BATCH, RATE = 300, 256, 3e-3  # of training, about a second
DROPPED = 0.1  # of the labels, so that one network is both of the guided pair
NONE = 10  # the label that says nothing
WAVES = 2.0 ** torch.arange(4)  # cycles of the time features over the path, halved


class DigitNetwork(nn.Module):
    """The velocity of 8 x 8 digits, two hidden layers: (B, 64), t (B,), labels (B,) -> (B, 64)."""

    def __init__(self, width: int):
        super().__init__()
        self.label = nn.Embedding(NONE + 1, 16)
        sizes = [64 + 16 + 2 * len(WAVES), width, width, 64]
        layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
        self.layers = nn.Sequential(layers[0], nn.SiLU(), layers[1], nn.SiLU(), layers[2])

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        angle = torch.pi * t[:, None] * WAVES.to(t)
        return self.layers(torch.cat([x, angle.sin(), angle.cos(), self.label(label)], 1))


def train(network: DigitNetwork, generator: torch.Generator) -> None:
    """Regresses data - noise at x = (1 - t) noise + t data, t uniform (Lipman et al. 2023)."""
    points, labels = digits()
    points = points.float()
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        rows = torch.randint(len(points), (BATCH,), generator=generator)
        data, noise = points[rows], torch.randn(BATCH, 64, generator=generator)
        t = torch.rand(BATCH, generator=generator)
        dropped = torch.rand(BATCH, generator=generator) < DROPPED
        label = torch.where(dropped, NONE, labels[rows])
        x = torch.lerp(noise, data, t[:, None])
        loss = (network(x, t, label) - (data - noise)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@family
def trained_networks(rng: Random) -> Problem:
    """A network trained on digits for a second, width 96 to 192, guided to one by 1 to 5."""
    seed, width = seeded(rng), rng.choice([96, 128, 192])
    label, weight = rng.randrange(10), rng.uniform(1, 5)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)  # of the initial weights
        network = DigitNetwork(width)
        train(network, torch.Generator().manual_seed(seed))
    network.double().requires_grad_(False)

    def to(digit: int):
        return batched(lambda x, t: network(x, t, torch.full((len(x),), digit)))

    return made(guide((to(label), to(NONE)), weight), 64, f"trained, to {label}({weight:.1f})")
