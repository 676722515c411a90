"""The default: a multistep rule, its form and its grid, chosen from the number of steps alone.

Nothing here is trained on the field at hand. The numbers were fitted once, to the mean error over
ten fields (Gaussian, mixtures in 2 to 64 dimensions, guided ones, digits) and checked on ten
others; `pilot` improves the grid by a look at a field.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from samplers.core import Path, Velocity, solver
from samplers.grids import grid, pin, uniform
from samplers.solvers.adams import Form, Scheme, adams


@dataclass(frozen=True)
class Choice:
    """What does best from so many steps on."""

    steps: int
    predictor: int
    corrector: int
    sd: float  # of the form
    pace: float  # of the clock
    tilt: tuple[float, ...]  # of the grid

    @property
    def scheme(self) -> Scheme:
        """The start is not renewed: below a hundred steps its calls do more good elsewhere."""
        return Scheme(self.predictor, self.corrector, Form(1.0, self.sd, self.pace), renewed=False)


CHOICES = (
    Choice(1, 2, 0, 2.0, 2.0, (-0.66, -0.15, -0.22, 0.18, 0.0)),
    Choice(4, 2, 0, 2.0, 2.0, (-0.66, -0.15, -0.22, 0.18, 0.0)),
    Choice(6, 2, 3, 1.71, 2.42, (-0.61, -0.15, -0.55, -0.32, 0.0)),
    Choice(8, 3, 4, 0.41, 0.82, (-0.36, -0.32, -0.18, -0.34, 0.03)),
    Choice(10, 3, 4, 0.39, 0.70, (-0.18, -0.35, 0.10, -0.52, -0.24)),
    Choice(16, 5, 6, 0.38, 2.37, (-0.31, -0.46, -0.26, -0.31, -0.26)),
    Choice(20, 5, 6, 0.37, 1.39, (-0.35, -0.51, -0.45, -0.25, -0.16)),
    Choice(32, 5, 6, 0.33, 0.63, (-0.15, -0.28, -0.29, -0.16, -0.12)),
    Choice(48, 5, 6, 0.5, 1.0, (0.0, -0.22, -0.19, -0.17, 0.05)),
)


def choice(steps: int) -> Choice:
    """The last entry that asks for no more steps."""
    return CHOICES[bisect_right(CHOICES, steps, key=lambda c: c.steps) - 1]


@solver(order=3, grid="tilted")
def auto(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """Predict, evaluate, correct in the form that suits the number of steps (see `CHOICES`).

    The order is that of the start, whose values are not found again; what follows it is of higher
    order.
    """
    return adams(v, x, ts, choice(len(ts) - 1).scheme)


@grid
def tilted(n: int, tilt: tuple[float, ...] | None = None) -> Tensor:
    """Steps in proportion to exp(sum_k tilt_k P_k(y)), y from -1 to 1, P_k Legendre's polynomials.

    Without `tilt`, the grid of `auto` for n steps.
    """
    return tilt_steps(uniform(n), tilt_of(n) if tilt is None else tilt)


def tilt_steps(ts: Tensor, tilt: Iterable[float]) -> Tensor:
    """The grid from 0 to 1 whose steps are those of ts, tilted."""
    u = uniform(len(ts) - 1)
    y = u[1:] + u[:-1] - 1  # the middles of the steps
    logs = sum((a * p for a, p in zip(tilt, _legendre(y), strict=False)), ts.diff().log())
    ends = torch.cat([torch.zeros(1, dtype=torch.float64), logs.exp().cumsum(0)])
    return pin(ends / ends[-1])


def tilt_of(n: int) -> tuple[float, ...]:
    """The tilt of `auto` for n steps: between two entries in proportion to log n."""
    here = choice(n)
    above = next((c for c in CHOICES if c.steps > n), here)
    share = math.log(n / here.steps) / math.log(above.steps / here.steps) if above != here else 0.0
    return tuple(a + share * (b - a) for a, b in zip(here.tilt, above.tilt, strict=True))


def _legendre(y: Tensor) -> Iterator[Tensor]:
    """P_1, P_2, ... at y, by Bonnet's recursion."""
    before, now = torch.ones_like(y), y
    for k in count(1):
        yield now
        before, now = now, ((2 * k + 1) * y * now - k * before) / (k + 1)
