"""Rectified flow of any velocity field: pairs of its endpoints, the loss on them, and straightness.

    noise, data = rectify.pairs(net, torch.randn(4096, 2), 64)
    loss = rectify.loss(net, noise[i], data[i], torch.rand(256))

A network trained on pairs of its own flow keeps the distribution but has straighter paths (Liu et
al. 2022, arXiv 2209.03003), so fewer steps suffice. A round costs one integration per pair.
"""

from itertools import pairwise

import torch
from torch import Tensor

from samplers.core import Solver, Velocity, sample, trajectory
from samplers.fields import fitting, per_sample
from samplers.grids import uniform


def pairs(
    v: Velocity, noise: Tensor, ts: int | Tensor = 64, solver: str | Solver = "auto"
) -> tuple[Tensor, Tensor]:
    """Returns the noise (B, ...) and the data (B, ...) where the flow carries it, no gradients."""
    with torch.no_grad():
        return noise, sample(v, noise, ts, solver)


def loss(v: Velocity, noise: Tensor, data: Tensor, t: Tensor) -> Tensor:
    """|v(x_t, t) - (data - noise)|^2 with x_t = (1 - t) noise + t data, t (B,) -> (B,).

    `v` takes t as (B,), as networks do. Liu et al. 2022, eq. 1. Raises ValueError for shapes that
    differ.
    """
    for name, value, shape in (("data", data, noise.shape), ("times", t, noise.shape[:1])):
        if not isinstance(value, Tensor) or value.shape != shape:
            came = tuple(value.shape) if isinstance(value, Tensor) else repr(value)[:60]
            raise ValueError(
                f"the {name} are {came} where the noise is {tuple(noise.shape)}; expected a tensor "
                f"of shape {tuple(shape)}"
            )
    way = data - noise
    x = noise + per_sample(t, noise) * way
    return (fitting(v(x, t), x) - way).square().flatten(1).mean(dim=1)


def straightness(v: Velocity, noise: Tensor, steps: int = 32) -> float:
    """Integral of E |v - (x1 - x0)|^2 over E |x1 - x0|^2; 0 for straight paths at constant speed.

    Paths are integrated by Heun, with v as the difference of successive states. Liu et al. 2022,
    section 2.2, made dimensionless.
    """
    states = [x for _, x in trajectory(v, noise, uniform(steps), "heun", nonfinite="return")]
    chord = states[-1] - states[0]
    bends = [(steps * (b - a) - chord).square().mean() for a, b in pairwise(states)]
    return float(torch.stack(bends).mean() / chord.square().mean())
