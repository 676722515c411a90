"""The flow map of a velocity field by numerical integration."""

from dataclasses import dataclass

import torch
from torch import Tensor

from samplers.core import Solver, Velocity, find, sample
from samplers.fields import FlowMap, flow_map, per_sample


def integrated(v: Velocity, calls: int = 64, solver: str | Solver = "rk4") -> FlowMap:
    """Returns the flow map of v, by so many evaluations of a fixed-step solver; use it to test
    learned maps.

    u(x, t, s) = (x_s - x) / (s - t), where x_s is integrated from t to s in equal steps, and v(x,
    t) if t = s. Times are one number for the batch, or (B,) and (B, 1, ..., 1) for one per sample.
    """
    chosen = find(solver)
    ts = torch.linspace(0, 1, chosen.steps(calls) + 1, dtype=torch.float64, device="cpu")
    return flow_map(MeanVelocity(v, ts, chosen))


@dataclass(frozen=True)
class MeanVelocity:
    """(x_s - x) / (s - t) by integrating v from t to s, through the shares `ts` of the way."""

    v: Velocity
    ts: Tensor
    solver: Solver

    def __call__(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        t, h = _beside(t, x), _beside(s, x) - _beside(t, x)

        def scaled(y: Tensor, share: Tensor) -> Tensor:
            return self.v(y, t + share.to(h) * h) * h.to(y.dtype)

        moved = sample(scaled, x, self.ts, self.solver) - x
        still = h == 0
        mean = moved / torch.where(still, torch.ones_like(h), h).to(moved.dtype)
        return torch.where(still, self.v(x, t), mean) if bool(still.any()) else mean


def _beside(t: Tensor, x: Tensor) -> Tensor:
    """Returns a time of the batch unchanged, and times per sample as (B, 1, ..., 1)."""
    t = t if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64, device="cpu")
    return per_sample(t, x) if t.ndim else t.double()
