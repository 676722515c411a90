"""Adaptive solvers with a step size and error control of its own for each sample of the batch.

A sample's result does not depend on the others, and an easy sample is not held to the steps of a
hard one. v gets t of shape (B, 1, ..., 1) and always the whole batch; finished samples wait. So a
batch takes as many evaluations as its hardest sample. A step to a state where v is not finite is
tried again with a smaller size; `sample` still reports it, unless nonfinite="return".
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from samplers.fields import flat, per_sample, widest
from samplers.solver_registry import Path, Velocity, solver
from samplers.solvers.adaptive import Limited, check_tolerances, underflow


@dataclass(frozen=True)
class Tableau:
    """An embedded pair whose last stage is the first of the next step.

    Stage i is at t + c_i h and x + h sum_j a_ij k_j; the last one is the new state, and h sum_j e_j
    k_j is its difference to a state of lower order.
    """

    order: int
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    e: tuple[float, ...]


BOGACKI_SHAMPINE = Tableau(
    order=3,
    c=(1 / 2, 3 / 4, 1),
    a=((1 / 2,), (0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    e=(-5 / 72, 1 / 12, 1 / 9, -1 / 8),
)
DORMAND_PRINCE = Tableau(
    order=5,
    c=(1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1),
    a=(
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    e=(71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
)


@solver(order=5, calls=6, extra=2, adaptive=True)
def dopri5_per_sample(
    v: Velocity,
    x: Tensor,
    ts: Tensor,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_calls: int = 10_000,
) -> Path:
    """Dormand and Prince 5(4), with separate steps for each sample."""
    field = Limited("dopri5_per_sample", v, ts, max_calls)
    return _Control(field, DORMAND_PRINCE, rtol, atol).path(x, ts)


@solver(order=3, calls=3, extra=2, adaptive=True)
def bosh3_per_sample(
    v: Velocity,
    x: Tensor,
    ts: Tensor,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_calls: int = 10_000,
) -> Path:
    """Bogacki and Shampine 3(2), with each sample's own steps; cheaper at loose tolerances."""
    field = Limited("bosh3_per_sample", v, ts, max_calls)
    return _Control(field, BOGACKI_SHAMPINE, rtol, atol).path(x, ts)


@dataclass(frozen=True)
class _Progress:
    """The progress of every sample: state (B, ...), velocity there, and as (B, 1, ..., 1) its time,
    the next step size h > 0, and whether even the smallest step failed.
    """

    x: Tensor
    k: Tensor
    t: Tensor
    h: Tensor
    stuck: Tensor


@dataclass(frozen=True)
class _Control:
    field: Limited
    tableau: Tableau
    rtol: float
    atol: float

    def path(self, x: Tensor, ts: Tensor) -> Path:
        check_tolerances(self.rtol, self.atol, x.dtype)
        ts = ts.to(x.device, widest(x.device))
        now = self._start(x, ts)
        for s in ts[1:]:
            while (now.t != s).any():
                now = self._attempt(now, s)
                if now.stuck.any():
                    raise underflow(self.field, self.rtol, self.atol, x.dtype)
            yield now.x

    def _start(self, x: Tensor, ts: Tensor) -> _Progress:
        """Returns a cautious first step from one trial; Hairer, Norsett and Wanner 1993, II.4."""
        t, span = per_sample(ts[0].expand(len(x)), x), ts[-1] - ts[0]
        k = self.field(x, t)
        with torch.no_grad():
            h = self._first_size(x, k, t, span)
        return _Progress(x, k, t, h, torch.zeros_like(h, dtype=torch.bool))

    def _first_size(self, x: Tensor, k: Tensor, t: Tensor, span: Tensor) -> Tensor:
        scale = self._scale(x, x)
        state, slope = _rms(x / scale).to(t), _rms(k / scale).to(t)
        trial = torch.where((state < 1e-5) | (slope < 1e-5), 1e-6, 0.01 * state / slope)
        trial = torch.minimum(trial.nan_to_num(1e-6), span.abs())
        step = trial * span.sign()
        bend = _rms((self.field(x + step.to(x.dtype) * k, t + step) - k) / scale).to(t) / trial
        size = (0.01 / torch.maximum(slope, bend).clamp(min=1e-15)) ** (1 / self.tableau.order)
        return torch.minimum(100 * trial, size.nan_to_num(1e-6))

    def _attempt(self, now: _Progress, s: Tensor) -> _Progress:
        """Takes one step towards s per sample, and keeps it where it is accurate.

        A sample whose velocity is not finite goes to s as NaN and does not affect the others. Step
        sizes and verdicts are not part of the gradient.
        """
        left = s - now.t
        arrives = now.h >= left.abs()
        step = torch.where(arrives, left, now.h * left.sign())
        x, k, error = self._stages(now, step)
        ratio = _rms((error / self._scale(now.x, x)).detach()).to(step)
        active = left != 0
        keep = active & (ratio <= 1)
        h = step.abs() * (0.9 * ratio ** (-1 / self.tableau.order)).nan_to_num(0.2).clamp(0.2, 5)
        # a step shortened in order to arrive says little about the next one
        h = torch.where(keep & arrives, torch.maximum(h, now.h), h)
        vanished = active & torch.where(
            keep, now.t + step == now.t, h < 16 * torch.finfo(h.dtype).eps
        )
        finite = per_sample(flat(now.k).isfinite().all(1), x)
        broken = active & (~finite | (vanished & ~ratio.isfinite()))
        return replace(
            now,
            x=torch.where(keep, x, now.x.masked_fill(broken, torch.nan)),
            k=torch.where(keep, k, now.k),
            t=torch.where(broken | (keep & arrives), s, torch.where(keep, now.t + step, now.t)),
            h=torch.where(active, h, now.h),
            stuck=vanished & ~broken,
        )

    def _stages(self, now: _Progress, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the new state, the velocity there, and the error estimate."""
        ks, h = [now.k], step.to(now.x.dtype)
        for c, row in zip(self.tableau.c, self.tableau.a, strict=True):
            x = now.x + h * _combine(row, ks)
            ks.append(self.field(x, now.t + c * step))
        return x, ks[-1], h * _combine(self.tableau.e, ks)

    def _scale(self, x: Tensor, y: Tensor) -> Tensor:
        return self.atol + self.rtol * torch.maximum(x.abs(), y.abs())


def _combine(weights: tuple[float, ...], ks: list[Tensor]) -> Tensor:
    return sum(w * k for w, k in zip(weights, ks, strict=True) if w)


def _rms(x: Tensor) -> Tensor:
    return per_sample(flat(x).square().mean(1).sqrt(), x)
