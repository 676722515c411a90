"""The guidance rules. Each is a function of a weight whose docstring states formula and source."""

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from samplers.callables import check_arguments
from samplers.fields import jumps_of
from samplers.grids import Rest
from samplers.guidance.rule import (
    Combine,
    Rule,
    Weight,
    deviation,
    dot,
    not_zero,
    number,
    ratio,
    rule,
    schedule,
    unless_one,
    weight_at,
    where,
)

MOST_STEPS = 100_000  # of a run that cfg++ is made for
NEAR = 1e-9  # two times that are one


@rule
def cfg(weight: Weight) -> Rule:
    """Classifier-free guidance, uncond + w (cond - uncond); Ho and Salimans 2022.

    Raises TypeError for a weight that is not a number and ValueError for NaN and infinity.
    """
    w = schedule(weight)
    return Rule(
        lambda cond, uncond, t: torch.lerp(uncond, cond, weight_at(w, t, cond)),
        unless_one(w),
        jumps_of(weight),
    )


@rule
def autoguidance(weight: Weight) -> Rule:
    """Guidance by a weaker model: the formula of `cfg` for the pair (strong, weak), both with the
    prompt.

    Karras et al. 2024, "Guiding a Diffusion Model with a Bad Version of Itself".
    """
    return cfg(weight)


@rule
def guidance_interval(
    guided: Combine | float | Tensor, start: float = 0.1, stop: float = 0.9
) -> Rule:
    """Guides while start <= t <= stop and follows `cond` elsewhere; Kynkäänniemi et al. 2024."""
    guided = as_rule(guided)
    if not start <= stop:
        raise ValueError(f"guidance from t = {start} to {stop} never acts; give start <= stop")

    def inside(t: Tensor) -> Tensor:
        return (t >= start) & (t <= stop)

    def combine(cond: Tensor, uncond: Tensor, t: Tensor, *x: Tensor) -> Tensor:
        return where(inside(t), guided(cond, uncond, t, *x), cond)

    jumps = (float(start), *(t for t in guided.jumps if start < t < stop), float(stop))
    return Rule(
        combine,
        lambda t: guided.reads(t) if inside(t).any() else 1,
        jumps,
        _through(guided, lambda inner: guidance_interval(inner, start, stop)),
        sees_state=guided.sees_state,
    )


@rule
def cfg_rescale(guided: Combine | float | Tensor, phi: float = 0.7) -> Rule:
    """Rescales the guided velocity g to the standard deviation of `cond`, by the fraction phi in
    [0, 1].

    g (1 - phi + phi std(cond) / std(g)), deviations per sample; Lin et al. 2024, section 3.4.
    """
    guided = as_rule(guided)
    if not 0 <= phi <= 1:
        raise ValueError(f"phi is {phi}; expected a share of rescaling from 0 (none) to 1")

    def combine(cond: Tensor, uncond: Tensor, t: Tensor, *x: Tensor) -> Tensor:
        g = guided(cond, uncond, t, *x)
        return torch.lerp(g, g * ratio(deviation(cond), deviation(g), otherwise=1.0), phi)

    again = _through(guided, lambda inner: cfg_rescale(inner, phi))
    return Rule(combine, guided.reads, guided.jumps, again, sees_state=guided.sees_state)


@rule
def cfg_zero_star(weight: Weight, until: float = 0.04) -> Rule:
    """CFG-Zero*: s uncond + w (cond - s uncond), s = <cond, uncond> / |uncond|^2, after a
    standstill.

    At the beginning the velocity is zero and no network is evaluated, because the guided velocity
    there is worse than none. On a grid of N steps this holds for the first `until` N steps,
    rounded. It holds while t < until instead if that is no step, if the grid has a time at
    t = until, and without a known grid. With until = 0 or w = 1 there is no standstill. Fan et al.
    2025 (2503.18886).
    """
    made = _still_until(weight, until)
    return replace(made, for_grid=lambda ts: _still_until(weight, _still_steps(ts, until)))


def _still_steps(ts: Tensor, until: float) -> float:
    """Returns the time at which the fraction `until` of a grid's steps ends."""
    rising = ts.sort().values
    first = round(until * (len(ts) - 1))
    timed = bool((rising == until).any()) or abs(float(rising[0])) > NEAR
    return until if timed or first == 0 else float(rising[min(first, len(ts) - 1)])


def _still_until(weight: Weight, until: float) -> Rule:
    w = schedule(weight)

    def combine(cond: Tensor, uncond: Tensor, t: Tensor) -> Tensor:
        scale = ratio(dot(cond, uncond), dot(uncond, uncond), otherwise=1.0)
        value = weight_at(w, t, cond)
        moving = (t >= until) | (value == 1)
        return where(moving, torch.lerp(scale * uncond, cond, value), torch.zeros_like(cond))

    def reads(t: Tensor) -> int:
        value = w(t)
        still = isinstance(value, float) and value != 1 and bool((t < until).all())
        return 0 if still else unless_one(w)(t)

    begins = () if isinstance(weight, Real) and weight == 1 else (Rest(until),)
    return Rule(combine, reads, (*begins, *jumps_of(weight)))


@rule
def apg(
    weight: Weight,
    parallel: float = 0.0,
    radius: float = math.inf,
    momentum: float = 0.0,
    of_data: bool = False,
) -> Rule:
    """Adaptive projected guidance, cond + (w - 1) (d_orthogonal + parallel d_parallel).

    d = cond - uncond, shortened to at most `radius` (Euclidean norm per sample), is split into
    parts orthogonal and parallel to `cond`; the parallel part causes saturation. Sadat et al. 2024
    (2410.02416). The paper splits predictions of the data, x + (1 - t) v, as of_data=True does;
    without it velocities are split, as in diffusers. With a momentum (negative in the paper, about
    -0.5) d is first d + momentum (d of the previous call), so v depends on earlier calls of the
    run: use it with solvers of one evaluation per step.
    """
    w = schedule(weight)
    if not radius > 0:
        raise ValueError(f"radius is {radius}; projected guidance (apg) expects a positive number")
    if not -1 < momentum < 1:
        raise ValueError(
            f"momentum is {momentum}; projected guidance (apg) expects a number in (-1, 1)"
        )

    def started(average: Callable[[Tensor], Tensor]) -> Rule:
        def change(d: Tensor, cond: Tensor) -> Tensor:
            d = average(d)
            if radius < math.inf:
                bound = torch.tensor(radius, dtype=d.dtype, device="cpu")
                d = d * (bound / not_zero(dot(d, d)).sqrt()).clamp(max=1.0)
            return d - (1 - parallel) * ratio(dot(d, cond), dot(cond, cond), otherwise=0.0) * cond

        def combine(cond: Tensor, uncond: Tensor, t: Tensor, *x: Tensor) -> Tensor:
            left = (1 - t).clamp(min=NEAR).to(cond.dtype) if of_data else 1.0
            along = x[0] + left * cond if of_data else cond
            d = change(left * (cond - uncond), along) / left
            return cond + (weight_at(w, t, cond) - 1) * d

        return Rule(combine, unless_one(w), jumps_of(weight), sees_state=of_data)

    if momentum == 0:
        return started(lambda d: d)
    return replace(started(_outside_a_run), for_grid=lambda _: started(_Average(momentum)))


class _Average:
    """d + momentum (the average so far), separate for each run."""

    def __init__(self, momentum: float):
        self.momentum, self.last = momentum, None

    def __call__(self, d: Tensor) -> Tensor:
        self.last = d if self.last is None else d + self.momentum * self.last
        return self.last


def _outside_a_run(_: Tensor) -> Tensor:
    raise ValueError(
        "momentum adds up over the evaluations of a run, so this rule cannot be called alone; "
        "sample the guided field, or use field.on_grid(ts) in a loop of your own"
    )


@rule(name="cfg++")
def cfg_plus_plus(weight: float, steps: int | Tensor | None = None) -> Rule:
    """CFG++ for flows: each step adds the unconditional noise back to the guided data.

    From t to s: s data_guided + (1 - s) noise_uncond, with data = x + (1 - t) v and noise = x - t
    v. This is an Euler step of `cfg` with the weight w s (1 - t) / (s - t). It is exact for Euler;
    other solvers use that weight during each step. The steps are those of the run; a rule that is
    called directly takes `steps`, a grid or the number of steps of a uniform one. w lies in [0, 1],
    and 1 does not mean no guidance. Chung et al. 2024.
    """
    if isinstance(weight, Tensor) or callable(weight):
        raise TypeError(
            "the weight of cfg++ varies; give one number, or use cfg to weight by time or by sample"
        )
    weight = number(weight)
    if isinstance(steps, Tensor):
        return _renoised(weight, steps)
    if steps is None:
        return replace(Rule(_without_grid(weight)), for_grid=lambda ts: _renoised(weight, ts))
    if not 1 <= steps <= MOST_STEPS:
        raise ValueError(f"steps is {steps:g}; cfg++ expects 1 to {MOST_STEPS}")
    alone = _renoised(
        weight, torch.linspace(0, 1, int(steps) + 1, dtype=torch.float64, device="cpu")
    )
    return replace(alone, for_grid=lambda ts: _renoised(weight, ts))


def _without_grid(weight: float) -> Combine:
    """Returns the weights of cfg++ for thirty equal steps, with a warning, outside a run."""
    thirty = _renoised(weight, torch.linspace(0, 1, 31, dtype=torch.float64, device="cpu"))

    def combine(cond: Tensor, uncond: Tensor, t: Tensor) -> Tensor:
        warnings.warn(
            "the weights of cfg++ follow from the grid, and outside a run they are those of 30 "
            "even steps; sample the guided field, or give the rule its steps",
            stacklevel=3,
        )
        return thirty(cond, uncond, t)

    return combine


def _renoised(weight: float, grid: Tensor) -> Rule:
    if grid.ndim != 1 or len(grid) < 2 or not (grid.diff() > 0).all():
        raise ValueError(
            "the grid of cfg++ does not rise; pass times that rise from noise (0) to data (1), or "
            "a number of steps"
        )
    weights = weight * grid[1:] * (1 - grid[:-1]) / grid.diff()

    def held(t: Tensor) -> Tensor:
        step = torch.searchsorted(grid.to(t), t.contiguous() + NEAR, right=True) - 1
        return weights.to(t)[step.clamp(0, len(weights) - 1)]

    held.jumps = tuple(grid[1:-1].tolist())
    return cfg(held)


def as_rule(value: Combine | float | Tensor | np.ndarray) -> Rule:
    """Returns the rule of a weight, one weight per sample, or a function."""
    if isinstance(value, Rule):
        return value
    if isinstance(value, np.ndarray):
        return cfg(torch.from_numpy(value.copy()) if value.ndim else value.item())
    if not callable(value):
        return cfg(value)
    check_arguments(value, "guidance rule", "cond", "uncond", "t")
    return Rule(value)


def _through(inner: Rule, outer: Callable[[Rule], Rule]) -> Callable[[Tensor], Rule] | None:
    """Makes a rule around another depend on the grid as the inner one does."""
    return None if inner.for_grid is None else lambda ts: outer(inner.on_grid(ts))
