"""Compares losses of flow maps on fields whose maps are known: error against evaluations.

    python -m studies.flow_maps --fields gaussian,mixture,moons --losses all --steps 3000

Data are mixtures of Gaussians in the plane, so the velocity is exact, and its map is integrated. A
network of two times is trained by each loss from samples alone; its error is the distance of
x + sum (s - t) u to the exact end, root mean square, over that of the exact ends from their mean.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

import samplers
from janusflow.training.losses import interpolate
from janusflow.training.objectives import map_losses
from janusflow.utils.devices import use_threads
from samplers import command_line

COUNTS = (1, 2, 4)
TESTED = 2048  # noises


@dataclass(frozen=True)
class Mixture:
    """Equal Gaussians with these means (K, 2) and one deviation; noise is N(0, I)."""

    means: Tensor
    deviation: float

    def data(self, count: int, generator: torch.Generator) -> Tensor:
        which = torch.randint(len(self.means), (count,), generator=generator)
        return self.means[which] + self.deviation * torch.randn(count, 2, generator=generator)

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """Returns the exact E[data - noise | x at t]: each Gaussian's own, weighted by its
        posterior.
        """
        t = torch.as_tensor(t, dtype=x.dtype).reshape(-1, 1)
        variance = (1 - t) ** 2 + (t * self.deviation) ** 2
        apart = x[:, None] - t[..., None] * self.means  # (B, K, 2)
        share = (-apart.square().sum(-1) / (2 * variance)).softmax(dim=1)
        slope = (t * self.deviation**2 - (1 - t)) / variance
        return (share[..., None] * (self.means + slope[..., None] * apart)).sum(dim=1)


def gaussian() -> Mixture:
    return Mixture(torch.tensor([[1.5, -0.5]]), 0.4)


def mixture() -> Mixture:
    angles = torch.arange(8) * math.pi / 4
    return Mixture(2 * torch.stack([angles.cos(), angles.sin()], dim=1), 0.15)


def moons() -> Mixture:
    angles = torch.linspace(0, math.pi, 24)
    upper = torch.stack([angles.cos() - 0.5, angles.sin() - 0.25], dim=1)
    return Mixture(1.5 * torch.cat([upper, -upper]), 0.12)


FIELDS = {"gaussian": gaussian, "mixture": mixture, "moons": moons}


class TwoTimes(nn.Module):
    """u(x, t, s): four layers over x and Fourier features of t and s - t."""

    def __init__(self, width: int = 128):
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.arange(4) * math.pi / 2)
        sizes = [2 + 16 + 2, width, width, width, 2]
        layers = []
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), nn.SiLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        times = torch.stack([t, s - t], dim=1)
        waves = (times[..., None] * self.frequencies).flatten(1)
        return self.layers(torch.cat([x, times, waves.sin(), waves.cos()], dim=1))


@dataclass(frozen=True)
class Draw:
    """What a loss is computed of: states x at t with the sample's v = data - noise, and s >= t."""

    x: Tensor
    t: Tensor
    s: Tensor
    v: Tensor
    progress: float  # of the training, in [0, 1]


Loss = Callable[[nn.Module, nn.Module, Draw], Tensor]
LOSSES: dict[str, Loss] = {}


def loss(made: Loss) -> Loss:
    """Registers a loss (u, lagged u, draw) -> (B,)."""
    LOSSES[made.__name__] = made
    return made


def beside_flow(found: Tensor, u: nn.Module, d: Draw) -> Tensor:
    """Holds half of the samples to the velocity itself."""
    half = len(d.t) // 2
    at_t = map_losses.flow_matching(u, d.x[:half], d.t[:half], d.v[:half])
    return torch.cat([at_t, found[half:]])


@loss
def flow(u, _lagged, d):
    """Learns the velocity alone, sampled by Euler: a map must beat it."""
    return map_losses.flow_matching(u, d.x, d.t, d.v)


@loss
def mean_flow(u, _lagged, d):
    return beside_flow(map_losses.mean_flow(u, d.x, d.t, d.s, d.v), u, d)


@loss
def mean_flow_finite(u, _lagged, d):
    return beside_flow(map_losses.mean_flow(u, d.x, d.t, d.s, d.v, "finite"), u, d)


@loss
def improved_mean_flow(u, _lagged, d):
    return beside_flow(map_losses.improved_mean_flow(u, d.x, d.t, d.s, d.v), u, d)


@loss
def alpha_flow(u, _lagged, d):
    """Lowers alpha from 1 to 0.05 over the first two thirds."""
    alpha = max(0.05, 1 - 1.5 * d.progress)
    found = map_losses.alpha_flow(u, d.x, d.t, d.s, d.v, alpha)
    return beside_flow(found * alpha, u, d)


@loss
def shortcut(u, lagged, d):
    return beside_flow(map_losses.shortcut(u, d.x, d.t, d.s, lagged), u, d)


@loss
def consistency(u, lagged, d):
    """Lowers h from 1/8 to 1/64, along the sample's own velocity."""
    step = 1 / (8 * 8**d.progress)
    return map_losses.consistency(u, d.x, d.t, d.v, step, lagged)


@loss
def consistency_distilled(u, lagged, d):
    """Does the same along the network's own velocity, which half of the samples train."""
    with torch.no_grad():
        own = lagged(d.x, d.t, d.t)
    step = 1 / (8 * 8**d.progress)
    found = map_losses.consistency(u, d.x, d.t, own, step, lagged)
    return beside_flow(found, u, d)


def train(field: Mixture, made: Loss, steps: int, batch: int = 512, seed: int = 0) -> nn.Module:
    """Returns the averaged network that was trained by one loss."""
    torch.manual_seed(seed)
    u = TwoTimes()
    lagged = copy.deepcopy(u).requires_grad_(False)
    optimizer = torch.optim.Adam(u.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        optimizer.zero_grad(set_to_none=True)
        made(u, lagged, draw(field, batch, generator, step / steps)).mean().backward()
        nn.utils.clip_grad_norm_(u.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        decay = min(0.99, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(lagged.parameters()), list(u.parameters()), 1 - decay)
    return lagged


def draw(field: Mixture, count: int, generator: torch.Generator, progress: float) -> Draw:
    data = field.data(count, generator)
    noise = torch.randn(count, 2, generator=generator)
    t, s = torch.rand(2, count, generator=generator).sort(dim=0).values
    return Draw(interpolate(noise, data, t), t, s, data - noise, progress)


@torch.no_grad()
def errors(field: Mixture, u: nn.Module, maps: bool = True) -> dict[int, float]:
    """Returns errors by evaluations, with equal jumps; `maps` False asks for the velocity only."""
    noise = torch.randn(TESTED, 2, generator=torch.Generator().manual_seed(99))
    exact = samplers.sample(field.velocity, noise.double(), 256, "rk4").float()
    spread = (exact - exact.mean(0)).square().sum(1).mean().sqrt()
    found = {}
    for count in COUNTS:
        x, ts = noise, torch.linspace(0, 1, count + 1)
        for t, s in zip(ts[:-1].tolist(), ts[1:].tolist(), strict=True):
            at, until = torch.full((TESTED,), t), torch.full((TESTED,), s if maps else t)
            x = x + (s - t) * u(x, at, until)
        found[count] = float((x - exact).square().sum(1).mean().sqrt() / spread)
    return found


def run(fields: list[str], losses: list[str], steps: int, seed: int = 0) -> list[dict]:
    """Returns a row for each field and loss."""
    rows = []
    for field in fields:
        for name in losses:
            began, made = time.perf_counter(), FIELDS[field]()
            u = train(made, LOSSES[name], steps, seed=seed)
            found = errors(made, u, maps=name != "flow")
            seconds = time.perf_counter() - began
            rows.append(dict(field=field, loss=name, errors=found, seconds=round(seconds, 1)))
            told = ", ".join(f"{n}: {e:.3f}" for n, e in found.items())
            print(f"{field:9} {name:22} error by evaluations {told} ({seconds:.0f} s)", flush=True)
    return rows


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "--fields", default=",".join(FIELDS), help="Trains on these fields, separated by commas."
    )
    parser.add_argument(
        "--losses", default="all", help="Trains with these losses, separated by commas, or all."
    )
    parser.add_argument("--steps", type=int, default=3000, help="Trains for this many steps.")
    parser.add_argument("--seed", type=int, default=0, help="Seeds the training.")
    parser.add_argument("--threads", type=int, help="Runs torch on this many threads.")
    parser.add_argument("--out", type=Path, help="Writes the rows to this JSON file.")
    args = parser.parse_args()
    use_threads(args.threads)
    losses = list(LOSSES) if args.losses == "all" else args.losses.split(",")
    rows = run(args.fields.split(","), losses, args.steps, args.seed)
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
