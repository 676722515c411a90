"""From data to noise and back: solvers made for it, the error of the round trip, and editing.

Any solver inverts when its grid runs backwards. The two registered here are known from editing
pictures with rectified flows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from samplers.core import (
    Path,
    Solver,
    Times,
    Velocity,
    advance,
    count,
    find,
    sample,
    solver,
    steps,
    times,
)


@solver(order=2, calls=2, time_gradient=True)
def rf_solver(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """x + h v + h^2/2 v', with v' the difference of v over half a step; Wang et al. 2024.

    Two terms of Taylor's series. Written out, it is the midpoint rule.
    """
    for t, s, h in steps(ts):
        k = v(x, t)
        slope = (v(advance(x, (h / 2, k)), (t + s) / 2) - k) / (h / 2)
        x = advance(x, (h, k), (h * h / 2, slope))
        yield x


@solver(order=2, calls=1, extra=1, time_gradient=True)
def fireflow(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """The midpoint rule whose way to the middle reuses the last step's velocity; Deng et al. 2024.

    The reused velocity is wrong by O(h), so the middle by O(h^2) and the step by O(h^3): second
    order for one call per step, and one more to begin with.
    """
    k = v(x, ts[0])
    for t, s, h in steps(ts):
        k = v(advance(x, (h / 2, k)), (t + s) / 2)
        x = advance(x, (h, k))
        yield x


@dataclass(frozen=True)
class RoundTrip:
    """Data taken to noise and back: both ends (B, ...), RMS error per sample (B,), calls of v."""

    noise: Tensor
    restored: Tensor
    error: Tensor
    calls: int

    def psnr(self, peak: float) -> Tensor:
        """20 log10(peak / error) in dB, (B,); `peak` is the largest difference data can have."""
        return 20 * torch.log10(peak / self.error)


def round_trip(
    v: Velocity, data: Tensor, ts: Times, solver: str | Solver = "heun", **options
) -> RoundTrip:
    """Integrates data to noise along the reverse of the grid `ts`, and back along `ts`.

    An integer for ts is the number of calls each way, on the solver's own grid.
    """
    chosen, counted = find(solver, **options), count(v)
    ts = times(ts, chosen, counted.jumps)
    noise = sample(counted, data, ts.flip(0), chosen)
    restored = sample(counted, noise, ts, chosen)
    error = (restored - data).reshape(len(data), -1).square().mean(1).sqrt()
    return RoundTrip(noise, restored, error, counted.calls)


def between(data: Tensor, noise: Tensor, t: float | Tensor) -> Tensor:
    """The state (1 - t) noise + t data of the linear path."""
    return (1 - t) * noise + t * data


def partway(ts: Tensor, strength: float) -> Tensor:
    """The part of a grid that changes data by `strength`: from 1 - strength to the end.

    strength 1 is the whole grid, and near 0 only its last moment is left. Start the run from
    between(data, noise, partway(ts, strength)[0]), or from data inverted to that time.
    """
    if not 0 < strength <= 1:
        raise ValueError(f"the strength of an edit is {strength}; choose it above 0 and at most 1")
    start = ts[0] + (1 - strength) * (ts[-1] - ts[0])
    rest = ts[1:][ts[1:] > start]
    if len(rest) > 1 and rest[0] - start < 1e-9:  # 1 - 0.9 is a little less than 0.1: no step
        rest = rest[1:]
    return torch.cat((start[None], rest))


def masked(v: Velocity, data: Tensor, noise: Tensor, mask: Tensor) -> Velocity:
    """A velocity that changes data only where `mask` is 1 and leads back to it where mask is 0.

    Outside the mask it is (data - x) / (1 - t), the straight way to the data from wherever the
    state is: on the line (1 - t) noise + t data, which every solver of the ODE follows exactly, and
    off it when a stochastic one has changed the noise. The inside sees the outside as it is at that
    time. `mask` broadcasts against data; values between 0 and 1 blend. Start the run from
    between(data, noise, ts[0]), forwards.
    """
    mask = mask.to(data)
    if not ((mask >= 0) & (mask <= 1)).all():
        raise ValueError("a mask holds values from 0 (keep) to 1 (change); this one goes beyond")

    def kept(x: Tensor, t: Tensor) -> Tensor:
        inside, t = v(x, t), t.to(x.dtype)
        pull = torch.where(t < 1, 1 / (1 - t), 0.0)  # at the end there is no time left to correct
        outside = data - noise + pull * (between(data, noise, t) - x)
        return torch.lerp(outside, inside.to(x.dtype), mask)

    kept.jumps = tuple(getattr(v, "jumps", ()))
    return kept
