"""Log-probabilities of the steps of stochastic solvers, for policy gradients.

A stochastic solver with one evaluation per step draws the next state from a Gaussian (see
`solvers.transitions`), so a trajectory is a Markov chain with known densities; Liu et al. 2025
(Flow-GRPO), Xue et al. 2025 (DanceGRPO), Wang and Yu 2025 (CPS).

    with torch.no_grad():
        run = samplers.rollout(v, noise, 8, "flow_grpo")
    for i, (t, s, x, y) in enumerate(run.steps()):
        now = samplers.step_log_prob(x, y, v(x, t), t, s, "flow_grpo")
        ratio = (now - run.log_probs[i]).exp()  # 1 until v is trained, with its gradient
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from samplers.core import Solver, Times, Velocity, find, trajectory
from samplers.fields import Wrapped, flat, per_sample, widest
from samplers.solvers.transitions import TRANSITIONS
from samplers.states import one_tensor


@dataclass(frozen=True, eq=False)
class Rollout:
    """A sampled trajectory: times (N + 1,), states (N + 1, B, ...), log-probabilities (N, B)."""

    ts: Tensor
    states: Tensor
    log_probs: Tensor

    @property
    def end(self) -> Tensor:
        """The state at the last time, (B, ...)."""
        return self.states[-1]

    def steps(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Yields (t, s, state at t, state at s) of each step."""
        for (t, s), (x, y) in zip(pairwise(self.ts), pairwise(self.states), strict=True):
            yield t, s, x, y


def step_log_prob(
    x: Tensor,
    y: Tensor,
    velocity: Tensor,
    t: float | Tensor,
    s: float | Tensor,
    solver: str | Solver = "euler_maruyama",
    **options: Any,
) -> Tensor:
    """log p(y | x) in nats (B,): the density of `solver` going from x at t to y at s.

    `velocity` is v(x, t), shaped like x (B, ...), and carries the gradient. t and s are numbers or
    (B,). Further options are the solver's (strength, rate). The density is that of all elements
    together; divide by their number for a mean. A step without noise, such as the last of `cps`,
    has log p = 0. Sums are in float64 if the device supports it. Raises ValueError for solvers
    whose step is not a Gaussian of one velocity.
    """
    chosen = find(solver, **options)
    if chosen.name not in TRANSITIONS:
        raise ValueError(
            f"a step of {chosen.name} has no density in closed form; choose one of "
            f"{', '.join(TRANSITIONS)}"
        )
    bound = {
        k: o
        for k, o in getattr(chosen.path, "keywords", {}).items()
        if k not in ("generator", "seed")
    }
    for name, z in (("x", x), ("y", y), ("the velocity", velocity)):
        if one_tensor(z, name).shape != x.shape:
            raise ValueError(f"{name} has shape {tuple(z.shape)} and x {tuple(x.shape)}")
    x, y = (z.to(torch.promote_types(z.dtype, torch.float32)) for z in (x, y))
    t, s = _times(t, x), _times(s, x)
    mean, deviation = TRANSITIONS[chosen.name](x, velocity.to(x.dtype), t, s, **bound)
    return _normal_log_prob(y, mean, deviation)


def rollout(
    v: Velocity, noise: Tensor, ts: Times, solver: str | Solver = "flow_grpo", **options: Any
) -> Rollout:
    """Samples as `samplers.sample` does, and keeps every state and the log-probability of each
    step.

    Options are the solver's, including `generator` and `seed`. It takes no additional evaluations
    of v.
    """
    chosen, seen = find(solver, **options), _Recorded(v)
    times, states = zip(*trajectory(seen, noise, ts, chosen), strict=True)
    steps = zip(pairwise(times), pairwise(states), seen.velocities, strict=True)
    log_probs = [step_log_prob(x, y, k, t, s, chosen) for (t, s), (x, y), k in steps]
    return Rollout(torch.stack(times), torch.stack(states), torch.stack(log_probs))


class _Recorded(Wrapped):
    """A velocity that keeps its results."""

    def __init__(self, v: Velocity):
        super().__init__(v)
        self.velocities: list[Tensor] = []

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.velocities.append(self.v(x, t).clone())
        return self.velocities[-1]


def _times(t: float | Tensor, x: Tensor) -> Tensor:
    """Returns a number as float64 on the CPU, and (B,) as (B, 1, ..., 1) on x's device."""
    t = t if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64, device="cpu")
    if t.numel() == 1:
        return t.detach().reshape(()).cpu().double()
    if len(t) != len(x):
        raise ValueError(f"{len(t)} times for {len(x)} samples; give one, or one each")
    return per_sample(t.to(x), x)


def _normal_log_prob(y: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Returns (B,) log-densities of y (B, ...) under N(mean, deviation^2), 0 if deviation is 0."""
    deviation = deviation.to(y.device, y.dtype)
    noisy = deviation > 0
    scale = torch.where(noisy, deviation, torch.ones_like(deviation))
    one = -0.5 * ((y - mean) / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)
    one = torch.where(noisy, one, torch.zeros_like(one))
    return flat(one).sum(1, dtype=widest(y.device))
