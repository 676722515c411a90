"""Time grids from noise (0) to data (1): functions of the number of steps n that return (n + 1,)
times.
"""

import math
from collections.abc import Callable, Iterable
from itertools import pairwise

import torch
from torch import Tensor

from samplers.registry import Registry

Grid = Callable[..., Tensor]
GRIDS: Registry[Grid] = Registry("grid")


def grid(place: Grid) -> Grid:
    """A decorator that registers a grid under its function's name."""
    GRIDS[place.__name__] = place
    return place


@grid
def uniform(n: int) -> Tensor:
    """t = u, the n + 1 equally spaced numbers from 0 to 1."""
    if n < 1:
        raise ValueError(f"the number of steps is {n}; expected at least 1")
    return torch.arange(n + 1, dtype=torch.float64, device="cpu") / n


@grid
def shifted(n: int, shift: float = 3.0) -> Tensor:
    """sigma = shift u / (1 + (shift - 1) u) for u from 1 to 0, t = 1 - sigma (Esser et al. 2024).

    shift > 1 concentrates the steps near the noise, shift < 1 near the data.
    """
    _positive(shift=shift)
    return pin(earlier(uniform(n), shift))


def earlier(ts: Tensor, shift: float) -> Tensor:
    """ts / (shift - (shift - 1) ts): times moved towards the noise; 0 and 1 stay."""
    return ts / (shift - (shift - 1) * ts)


@grid
def cosine(n: int) -> Tensor:
    """t = (1 - cos(pi u)) / 2: short steps at both ends (Chebyshev points)."""
    return pin((1 - torch.cos(math.pi * uniform(n))) / 2)


@grid
def trigonometric(n: int) -> Tensor:
    """Equal steps of the angle arctan(t / (1 - t)), the time of variance-preserving paths."""
    angle = uniform(n) * (math.pi / 2)
    return pin(angle.sin() / (angle.sin() + angle.cos()))


@grid
def logit_normal(n: int, mean: float = 0.0, scale: float = 1.0) -> Tensor:
    """Quantiles of sigmoid(N(mean, scale^2)), the density of training times of Esser et al. 2024.

    Half a step is cut off at both ends, where the normal quantile would be infinite.
    """
    _positive(scale=scale)
    u = uniform(n) * (1 - 1 / (n + 1)) + 0.5 / (n + 1)
    return _stretch(torch.sigmoid(mean + scale * math.sqrt(2) * torch.erfinv(2 * u - 1)))


@grid
def karras(n: int, rho: float = 7.0, low: float = 0.02, high: float = 80.0) -> Tensor:
    """Equal steps of the rho-th root of the noise-to-signal ratio (1 - t) / t (Karras et al. 2022).

    The ratio falls from `high` to `low`; the first and last times are then set to 0 and 1.
    """
    _positive(rho=rho, low=low, high=high - low)
    if rho < 0.1 or high > 1e9:
        raise ValueError(
            f"rho is {rho:g} and high {high:g}; expected rho of at least 0.1 and high of at most "
            "1e9"
        )
    ratio = (high ** (1 / rho) + uniform(n) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    return _stretch(1 / (1 + ratio))


@grid
def beta(n: int, a: float = 0.6, b: float = 0.6) -> Tensor:
    """Quantiles of Beta(a, b) (Lee et al. 2024): a and b below 1 give short steps at both ends."""
    _positive(a=a, b=b)
    angle = torch.linspace(0, math.pi / 2, 20 * n + 2001, dtype=torch.float64, device="cpu")
    middle = (angle[1:] + angle[:-1]) / 2
    density = middle.sin() ** (2 * a - 1) * middle.cos() ** (2 * b - 1)
    share = torch.cat([torch.zeros(1, dtype=torch.float64, device="cpu"), density.cumsum(0)])
    return pin(interpolate(uniform(n), share / share[-1], angle).sin() ** 2)


@grid
def power(n: int, exponent: float = 1.5) -> Tensor:
    """t = u^exponent: above 1 the steps are short near the noise, below 1 near the data."""
    _positive(exponent=exponent)
    return uniform(n) ** exponent


@grid
def quadratic(n: int) -> Tensor:
    """t = 1 - (1 - u)^2: the steps shorten towards the data."""
    return 1 - (1 - uniform(n)) ** 2


def interpolate(at: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Linear interpolation of the points (x, y), x increasing, at `at` within their range."""
    i = torch.searchsorted(x, at).clamp(1, len(x) - 1)
    share = (at - x[i - 1]) / (x[i] - x[i - 1])
    return torch.lerp(y[i - 1], y[i], share.clamp(0, 1))


NEAR = 1e-9  # two times that are one


# evaluations to a piece between jumps, on the average: fewer cost more than the jump does
LEAST, LEAST_AFTER_REST = 5, 3
FIRST, LAST = 0.6, 0.4  # lengths of the steps after and before a jump, over what they would be


class Rest(float):
    """A jump before which the velocity is zero; one step up to it is exact, without history."""


def at_jumps(
    ts: Tensor, jumps: Iterable[float], calls: int = 1, order: int | None = None
) -> Tensor:
    """Returns the grid with one of its inner times moved to each jump, and those between in
    proportion.

    Each jump takes the nearest free time, in order; the end of a `Rest` takes the first. A grid
    with fewer than five evaluations per piece, `calls` in every step, is unchanged, because
    restarting would cost more than the jump. With one evaluation per step the steps beside a jump
    are shorter, because multistep rules restart there; not if `order` is 1, because Euler's rule
    has no history. The grid may also descend.
    """
    jumps = list(jumps)
    placed = place_at(ts, jumps, calls)
    plain = calls > 1 or order == 1 or placed is ts
    return placed if plain else eased(placed, jumps)


def place_at(ts: Tensor, jumps: Iterable[float], calls: int = 1) -> Tensor:
    """Returns the grid with times at the jumps like `at_jumps`, without shorter steps there."""
    low, high = sorted((float(ts[0]), float(ts[-1])))
    inner = sorted({t for t in jumps if low + NEAR < t < high - NEAR})
    rests = bool(inner) and isinstance(inner[0], Rest)
    cuts = len(inner) - rests
    enough = LEAST * (cuts + 1) if cuts else LEAST_AFTER_REST
    if not inner or calls * (len(ts) - 1 - rests) < enough:
        return ts
    if ts[-1] < ts[0]:
        return -place_at(-ts, (-t for t in inner), calls)
    places, last = [0], len(ts) - 1
    for k, t in enumerate(inner):
        nearest = 1 if isinstance(t, Rest) else int((ts - t).abs().argmin())
        places.append(min(max(nearest, places[-1] + 1), last - len(inner) + k))
    places.append(last)
    moved = torch.tensor([low, *inner, high], dtype=ts.dtype, device="cpu")
    placed = interpolate(ts, ts[places], moved)
    placed[places] = moved
    return placed


def eased(ts: Tensor, jumps: Iterable[float]) -> Tensor:
    """Returns the grid with shorter steps after and before each of its times that is a jump.

    A `Rest` is not counted: the single step up to it is exact, and a new path begins behind it.
    """
    jumps, ts = list(jumps), ts.clone()
    at = torch.tensor([t for t in jumps if not isinstance(t, Rest)], dtype=ts.dtype, device="cpu")
    for part in pieces(ts, jumps):
        first, last = ((end - at).abs().lt(NEAR).any() for end in (part[0], part[-1]))
        steps = part.diff()
        if len(steps) > 1:
            steps[0] *= FIRST if first else 1
            steps[-1] *= LAST if last else 1
            part[1:-1] = torch.lerp(part[0], part[-1], steps.cumsum(0)[:-1] / steps.sum())
    return ts


def pieces(ts: Tensor, jumps: Iterable[float]) -> list[Tensor]:
    """Returns the grid cut at those of its inner times that are jumps."""
    at = torch.tensor(list(jumps), dtype=ts.dtype, device="cpu")
    cuts = ((ts[:, None] - at).abs() < NEAR).any(1).nonzero()[:, 0].tolist()
    ends = sorted({0, *cuts, len(ts) - 1})
    return [ts[a : b + 1] for a, b in pairwise(ends)]


def _stretch(ts: Tensor) -> Tensor:
    """Returns the times scaled linearly to begin at 0 and end at 1."""
    return pin((ts - ts[0]) / (ts[-1] - ts[0]))


def pin(ts: Tensor) -> Tensor:
    """Returns the times with exactly 0 and 1 at the ends, without rounding errors."""
    ts[0], ts[-1] = 0, 1
    return ts


def _positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{name} is {number:g}; expected a positive number")
