"""Editing with a flow: round trips, image-to-image, inpainting, controlled inversion, FlowEdit."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral, Real

import torch
from torch import Tensor

from samplers.callables import check_velocity
from samplers.core import (
    Solver,
    Times,
    Velocity,
    count,
    find,
    refuse_state,
    sample,
    times,
    traced,
    transformed,
    watched,
)
from samplers.fields import Watched, Wrapped, flat, on_grid, per_sample
from samplers.guidance.rule import where
from samplers.registry import old_names
from samplers.seeds import Generators, generators
from samplers.solvers.stochastic import draws
from samplers.states import one_tensor

OLD = {"between": "interpolate", "partway": "img2img_timesteps", "masked": "inpaint"}


@dataclass(frozen=True, eq=False)
class RoundTrip:
    """Data integrated to noise and back: both ends (B, ...), RMS error per sample (B,), calls."""

    noise: Tensor
    restored: Tensor
    error: Tensor
    calls: int

    def psnr(self, peak: float) -> Tensor:
        """20 log10(peak / error) in dB, (B,); `peak` is the data's largest difference."""
        return 20 * torch.log10(peak / self.error)


def round_trip(
    v: Velocity, data: Tensor, ts: Times, solver: str | Solver = "heun", **options
) -> RoundTrip:
    """Integrates data to noise along the reversed grid `ts`, and back along `ts`.

    An integer ts is the number of evaluations in each direction, on the solver's own grid.
    """
    chosen, counted = find(solver, **options), count(v)
    one_tensor(data, "the data")
    ts = times(ts, chosen, counted.jumps, counted.time_shift)
    noise = sample(counted, data, ts.flip(0), chosen)
    restored = sample(counted, noise, ts, chosen)
    error = flat(restored - data).square().mean(1).sqrt()
    return RoundTrip(noise, restored, error, counted.calls)


def interpolate(data: Tensor, noise: Tensor, t: float | Tensor) -> Tensor:
    """The state (1 - t) noise + t data of the straight path, t one number or (B,).

    Raises ValueError for other numbers of times.
    """
    if isinstance(t, Tensor) and t.ndim == 1 and noise.ndim > 1:
        if len(t) not in (1, len(noise)):
            raise ValueError(f"{len(t)} times came for {len(noise)} samples; give one, or one each")
        t = per_sample(t, noise)
    return (1 - t) * noise + t * data


def img2img_timesteps(ts: Tensor, strength: float) -> Tensor:
    """Returns the part of a grid that changes data by `strength`: from 1 - strength to the end.

    strength 1 is the whole grid. Start the run from interpolate(data, noise, img2img_timesteps(ts,
    strength)[0]), or from data inverted to that time.
    """
    if not isinstance(strength, Real | Tensor) or not 0 < strength <= 1:
        raise ValueError(
            f"the strength of an edit is {strength!r:.60}; choose it above 0 and at most 1"
        )
    start = ts[0] + (1 - strength) * (ts[-1] - ts[0])
    rest = ts[1:][ts[1:] > start]
    if len(rest) > 1 and rest[0] - start < 1e-9:  # 1 - 0.9 is a little less than 0.1: no step
        rest = rest[1:]
    return torch.cat((start[None], rest))


def inpaint(v: Velocity, data: Tensor, noise: Tensor, mask: Tensor) -> "Inpainting":
    """Returns a velocity that changes data where `mask` is 1 and keeps it where mask is 0.

    Outside the mask it is (data - x) / (1 - t), which leads straight to the data. v is evaluated
    with the line (1 - t) noise + t data there, and every state is projected onto it, so any solver,
    also a stochastic one, keeps the data exactly. `mask` broadcasts against data; values between 0
    and 1 blend. Start the run from interpolate(data, noise, ts[0]).
    """
    for name, value in (("the data", data), ("the noise", noise), ("the mask", mask)):
        one_tensor(value, name)
    mask = mask.to(data)
    for name, value in (("mask", mask), ("noise", noise)):
        if not _fits(value, data):
            raise ValueError(
                f"the {name} has shape {tuple(value.shape)} and the data {tuple(data.shape)}; the "
                f"{name}'s has to broadcast to the data's"
            )
    if not (transformed() or traced(mask)) and not ((mask >= 0) & (mask <= 1)).all():
        raise ValueError("the mask holds values outside [0, 1]; expected 0 (keep) to 1 (change)")
    return Inpainting(v, data, noise, mask)


def _fits(value: Tensor, data: Tensor) -> bool:
    """Returns whether a tensor broadcasts to the data's shape."""
    try:
        return torch.broadcast_shapes(value.shape, data.shape) == data.shape
    except RuntimeError:
        return False


def check_fits(value: Tensor, x: Tensor, name: str) -> None:
    """Raises ValueError if a tensor given with a field does not broadcast to its state."""
    if value.shape != x.shape and not _fits(value, x):
        raise ValueError(
            f"the state has shape {tuple(x.shape)} and {name} {tuple(value.shape)}; sample as many "
            "states"
        )


class Inpainting(Wrapped):
    """The velocity of `inpaint`: v inside a mask, the straight way to the data outside."""

    def __init__(self, v: Velocity, data: Tensor, noise: Tensor, mask: Tensor):
        super().__init__(v)
        self.data, self.noise, self.mask = data, noise, mask

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        inside, t = self.v(self.project(x, t), t), t.to(x.dtype)
        pull = torch.where(t < 1, 1 / (1 - t), 0.0)  # at the end there is no time left to correct
        outside = self.data - self.noise + pull * (interpolate(self.data, self.noise, t) - x)
        return torch.lerp(outside.to(x.dtype), inside.to(x.dtype), self.mask.to(x.dtype))

    def project(self, x: Tensor, t: Tensor) -> Tensor:
        """Returns x with the line (1 - t) noise + t data outside the mask."""
        check_fits(self.data, x, "the data")
        line = interpolate(self.data, self.noise, t.to(x.dtype)).to(x.dtype)
        return torch.where(self.mask == 0, line, x)


def controlled(
    v: Velocity,
    end: Tensor,
    strength: float,
    *,
    data: bool = True,
    start: float = 0.0,
    stop: float = 1.0,
) -> "Controlled":
    """v + strength (straight - v), where `straight` leads from x at t directly to `end` (B, ...).

    With data=True `end` is data, reached at t = 1 by (end - x) / (1 - t); otherwise it is noise,
    reached at t = 0 by (x - end) / t on a falling grid. strength 0 is v and 1 leads straight there.
    It acts while start <= t <= stop, where bounds inside the grid are jumps of the field. Data
    inverted with a pull to typical noise can be edited; a pull to the data then preserves what
    should stay. Rout et al. 2024 (RF inversion, 2410.10792).
    """
    if not isinstance(strength, Real | Tensor) or not 0 <= strength <= 1:
        raise ValueError(
            f"the strength of a control is {strength!r:.60}; choose it from 0 (none) to 1"
        )
    if not start < stop:
        raise ValueError(f"a control from t = {start} to {stop} never acts; give start < stop")
    return Controlled(v, end, strength, data, start, stop)


class Controlled(Wrapped):
    """The velocity that `controlled` returns."""

    def __init__(
        self, v: Velocity, end: Tensor, strength: float, data: bool, start: float, stop: float
    ):
        super().__init__(v)
        self.end, self.strength, self.data = end, strength, data
        self.start, self.stop = start, stop

    @property
    def jumps(self) -> tuple[float, ...]:
        ends = (t for t in (self.start, self.stop) if 0 < t < 1)
        return tuple(sorted({*super().jumps, *ends}))

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        check_fits(self.end, x, "the end")
        k = self.v(x, t).to(x.dtype)
        left = (1 - t if self.data else t).to(x.dtype)
        acts = (t >= self.start) & (t <= self.stop) & (left > 0)  # at the end no time is left
        gap = self.end.to(x.dtype) - x if self.data else x - self.end.to(x.dtype)
        straight = gap / torch.where(left > 0, left, 1.0)
        return where(acts, torch.lerp(k, straight, self.strength), k)


def flow_edit(
    source: Velocity,
    target: Velocity,
    data: Tensor,
    ts: Times,
    *,
    averages: int = 1,
    generator: Generators = None,
    seed: int | Sequence[int] | None = None,
) -> Tensor:
    """Moves data (B, ...) from one prompt to another without inversion; Kulikov et al. 2024
    (FlowEdit).

    The edit z starts at the data and moves with target(z_t, t) - source(x_t, t), where x_t is the
    data with new noise at time t and z_t = z + x_t - data, averaged over `averages` draws with two
    evaluations each. An integer ts is a number of steps of a uniform grid; start the grid later,
    for example by `img2img_timesteps`, to stay closer to the data. Velocities are refused as by
    `samplers.sample`, also those that are not finite.
    """
    refuse_state(one_tensor(data, "the data"))
    if isinstance(averages, bool) or not isinstance(averages, Integral) or averages < 1:
        raise ValueError(f"averages is {averages!r:.60}; expected a whole number of at least 1")
    ts = times(ts, find("euler"))
    if ts[-1] < ts[0]:
        raise ValueError("the grid of an edit falls; expected one that rises to the data, t = 1")
    for v in (source, target):
        check_velocity(v)
    fields = [watched(on_grid(v, ts)) for v in (source, target)]
    source, target = fields
    draw, z = draws(data, generators(generator, seed, len(data))), data
    for t, s in pairwise(ts):
        for_all = torch.zeros_like(data)
        for _ in range(averages):
            x = interpolate(data, draw(), t.to(data.dtype))
            moved = target(z + x - data, t).clone() - source(x, t)
            for_all = for_all + moved.to(data.dtype) / averages
        z = z + float(s - t) * for_all
    for field in fields:
        if isinstance(field, Watched):
            field.check(data)
    return z


__getattr__ = old_names(__name__, OLD)
