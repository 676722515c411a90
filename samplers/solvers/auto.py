"""The default solver: a blend of Adams rules of several orders, on a grid of its own.

High orders help where a field is smooth and hurt where it is not, which depends on the time and on
the number of steps. So every step is a weighted mean of the rules of orders one to five, with
weights that were fitted once over families of fields (`KNOTS`). A run of four steps adapts to each
sample (`leaning`), others where a velocity turns fast (`caution`); `pilot` adapts to the field for
any number.
"""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, islice, zip_longest

import torch
from torch import Tensor

from samplers.fields import jumps_of
from samplers.grids import grid, pin, uniform
from samplers.solver_registry import Path, Velocity, advance, solver
from samplers.solvers.adams import Form, Scheme, adams, move
from samplers.solvers.caution import CORRECTS, Row, crossed, doubt, doubts, looks, overshot
from samplers.solvers.leaning import lean as leaned
from samplers.solvers.leaning import leans

Polynomial = tuple[float, ...]  # coefficients of Legendre's polynomials P_0, P_1, ... in y


@dataclass(frozen=True)
class Knot:
    """The parameters fitted for a number of steps; between two knots they are interpolated.

    The n steps lie at y = -1 + 1/n, -1 + 3/n, ... 1 - 1/n. Step lengths are proportional to
    exp(sum_k tilt_k P_k(y)). `predict` and `correct` are the weights, as polynomials in y, of the
    rules through two, three, ... values; the remainder goes to Euler's rule, and to no correction.
    """

    steps: int
    tilt: Polynomial
    predict: tuple[Polynomial, ...]
    correct: tuple[Polynomial, ...]


KNOTS = (
    Knot(
        steps=4,
        tilt=(-0.921, -0.459, -0.539, -0.291, -0.383, 0.091),
        predict=((0.674, -0.033, 0.526), (-0.021, -1.091, 0.241), (0.0, 0.0, 0.0)),
        correct=(
            (0.342, 0.094, 0.197),
            (0.546, -0.188, 0.158),
            (-0.026, -0.096, 0.023),
            (0.0, 0.0, 0.0),
        ),
    ),
    Knot(
        steps=6,
        tilt=(-0.946, -0.65, -0.441, -0.163, -0.529, 0.165),
        predict=((0.568, 0.002, 0.238), (0.054, -0.863, 0.144), (-0.033, -0.033, 0.029)),
        correct=(
            (0.446, 0.049, 0.072),
            (0.642, -0.122, 0.039),
            (-0.089, -0.084, -0.033),
            (-0.029, -0.011, -0.002),
        ),
    ),
    Knot(
        steps=8,
        tilt=(-0.825, -0.779, -0.396, -0.524, -0.225, -0.077),
        predict=((0.945, 0.129, 0.92), (0.094, -0.507, -0.114), (-0.029, -0.171, -0.108)),
        correct=(
            (0.028, -0.03, 0.082),
            (0.453, 0.1, -0.16),
            (0.379, -0.322, 0.031),
            (0.061, 0.041, 0.002),
        ),
    ),
    Knot(
        steps=10,
        tilt=(-0.76, -1.02, -0.553, -0.092, -0.329, -0.056),
        predict=((0.836, 0.269, 1.3), (0.13, -0.914, -0.476), (0.0, 0.0, 0.0)),
        correct=(
            (-0.061, -0.266, 0.051),
            (0.405, 0.144, -0.241),
            (0.621, -0.191, 0.069),
            (0.0, 0.0, 0.0),
        ),
    ),
    Knot(
        steps=16,
        tilt=(-0.548, -0.722, -0.568, -0.365, -0.126, 0.005),
        predict=((0.436, 0.494, 1.084), (0.337, -0.542, -0.525), (0.307, -0.118, -0.36)),
        correct=(
            (-0.067, -0.157, -0.176),
            (0.504, 0.052, -0.077),
            (0.546, -0.182, 0.142),
            (0.008, 0.082, -0.017),
        ),
    ),
    Knot(
        steps=32,
        tilt=(-0.664, -0.841, -0.398, -0.309, 0.045, -0.135),
        predict=((0.345, 0.287, 0.618), (-0.03, -0.261, -0.191), (0.733, 0.011, -0.309)),
        correct=(
            (-0.107, -0.188, -0.215),
            (0.33, 0.007, -0.112),
            (0.588, -0.03, 0.195),
            (0.19, 0.208, 0.109),
        ),
    ),
)
# all predictors through four values, all correctors through five
NONE, ALL = (0.0, 0.0, 0.0), (1.0, 0.0, 0.0)
KNOTS += (
    Knot(64, (0.0, -0.22, -0.19, -0.17, 0.05, 0.0), (NONE, NONE, ALL), (NONE, NONE, NONE, ALL)),
)
# on a part of the path the place along it says nothing: orders 2 and 3, or 3 and 4 of dense steps
PART = Knot(1, (), ((1.0,), (0.0,)), ((0.0,), (1.0,)))
DENSE_PART = Knot(1, (), ((0.0,), (1.0,)), ((0.0,), (0.0,), (1.0,)))
DENSE = 12  # steps per unit of time
MOST = 0.85  # of the path is as good as the whole
DEPTH = 5  # values that the longest rule looks back over

MANY = Scheme(5, 6, renewed=False)  # beyond MANY_STEPS, order is all
MANY_STEPS = 64


@solver(order=3, grid="tilted", shifts=True)
def auto(v: Velocity, x: Tensor, ts: Tensor, lean: bool = True) -> Path:
    """Predict, evaluate, correct, by a blend of Adams rules that suits the number of steps.

    With four steps the last two predictions depend on each sample's velocities, with six or more a
    prediction is nearer to Euler's where they turn fast, and up to seven the first correction is
    left out where it exceeds the step, unless `lean` is False; otherwise the rule is linear in the
    velocities. Beyond 64 steps a scheme of fixed order is used; its start is of order three. For
    fields with an attribute `time_shift` c, as of models trained with a shift, the solver's own
    grid becomes t / (c - (c - 1) t).
    """
    if len(ts) - 1 > MANY_STEPS:
        yield from adams(v, x, ts, MANY)
        return
    known: deque[Tensor] = deque(maxlen=DEPTH)
    noise, ahead, times = x, x, tuple(ts.tolist())
    leaning, seconds = lean and leans(ts), looks(times) if lean else ()
    behind, doubted = crossed(times, jumps_of(v)), None
    for i, (t, (correct, predict)) in enumerate(zip(ts[:-1].unbind(), plan(times), strict=True)):
        known.appendleft(v(ahead, t))
        if correct:
            x = advance(x, *zip(correct, known, strict=False))
            if lean and i == 1 and (row := overshot(times, correct)):
                x = torch.lerp(x, ahead, doubt(known, row))
            yield x
        if i in behind:
            known = deque([known[0]] * len(known), maxlen=DEPTH)
        ahead, h = advance(x, *zip(predict, known, strict=False)), times[i + 1] - times[i]
        if leaning:
            ahead = leaned(ahead, noise, list(known), times)
        if seconds and seconds[i]:
            doubted = doubt(known, seconds[i])
        if doubted is not None:
            ahead = torch.lerp(ahead, advance(x, (h, known[0])), doubted)
    yield ahead


def adapts(ts: Tensor) -> bool:
    """Returns whether a run on this grid depends on the velocities other than linearly."""
    return leans(ts) or doubts(ts) or len(ts) - 1 in CORRECTS


@lru_cache(maxsize=256)
def plan(ts: tuple[float, ...]) -> tuple[tuple[Row, Row], ...]:
    """Returns each step's weights once its velocity is known: correct the last, predict this."""
    n = len(ts) - 1
    knot = knot_for(n, abs(ts[-1] - ts[0]))
    forward = [shares(knot.predict, y) for y in middles(n)]
    back = [shares(knot.correct, y) for y in middles(n)]
    rows = [((), blend(ts, 0, 0, forward[0]))]
    for i in range(1, n):
        (kept, *better), (_, before) = back[i - 1], rows[-1]
        correct = add(blend(ts, i - 1, i, (0.0, *better)), (0.0, *before), kept)
        rows.append((correct, blend(ts, i, i, forward[i])))
    return tuple(rows)


def shares(rules: tuple[Polynomial, ...], y: float) -> Row:
    """Returns the weights of the rules through one, two, ... values at y; they add up to one."""
    p = [1.0, *islice(_legendre(y), len(rules[0]) - 1)]
    higher = [sum(c * q for c, q in zip(rule, p, strict=True)) for rule in rules]
    return (1 - sum(higher), *higher)


def blend(ts: tuple[float, ...], step: int, newest: int, of: Row) -> Row:
    """Returns a step's weights: the rules through 1, 2, ... newest values, blended in these shares.

    Near the beginning, where a rule lacks values, the longest possible rule replaces it.
    """
    total: Row = ()
    for points, share in enumerate(of, 1):
        nodes = [ts[newest - j] for j in range(min(points, newest + 1))]
        total = add(total, move(Form(), ts[step], ts[step + 1], nodes).weights, share)
    return total


def add(a: Row, b: Row, scale: float) -> Row:
    """a + scale b, where the shorter one is padded with zeros."""
    return tuple(p + scale * q for p, q in zip_longest(a, b, fillvalue=0.0))


def middles(n: int) -> list[float]:
    """Returns the middles of n equal intervals of [-1, 1]."""
    return [(2 * i + 1) / n - 1 for i in range(n)]


def knot_for(n: int, length: float) -> Knot:
    """Returns the parameters of n steps over this much of the path."""
    if length >= MOST:
        return knot_of(n)
    return DENSE_PART if n >= DENSE * length else PART


@lru_cache(maxsize=256)
def knot_of(n: int) -> Knot:
    """Returns n steps' parameters, interpolated in log n between knots, beyond them the nearest."""
    i = bisect_right(KNOTS, n, key=lambda k: k.steps)
    below, above = KNOTS[max(0, i - 1)], KNOTS[min(i, len(KNOTS) - 1)]
    if below is above or n <= below.steps:
        return below
    share = math.log(n / below.steps) / math.log(above.steps / below.steps)

    def mean(a: Polynomial, b: Polynomial) -> Polynomial:
        return tuple(p + share * (q - p) for p, q in zip(a, b, strict=True))

    return Knot(
        steps=n,
        tilt=mean(below.tilt, above.tilt),
        predict=tuple(map(mean, below.predict, above.predict)),
        correct=tuple(map(mean, below.correct, above.correct)),
    )


@grid
def tilted(n: int, tilt: tuple[float, ...] | None = None) -> Tensor:
    """Returns steps proportional to exp(sum_k tilt_k P_k(y)), y from -1 to 1, with Legendre
    polynomials P_k.

    Without `tilt` it is the grid of `auto` for n steps.
    """
    return tilt_steps(uniform(n), knot_of(n).tilt if tilt is None else tilt)


def tilt_steps(ts: Tensor, tilt: Iterable[float]) -> Tensor:
    """Returns the grid from 0 to 1 with the steps of ts, tilted."""
    u = uniform(len(ts) - 1)
    y = u[1:] + u[:-1] - 1  # the middles of the steps
    logs = sum((a * p for a, p in zip(tilt, _legendre(y), strict=False)), ts.diff().log())
    ends = torch.cat([torch.zeros(1, dtype=torch.float64, device="cpu"), logs.exp().cumsum(0)])
    return pin(ends / ends[-1])


def _legendre(y):
    """Returns P_1, P_2, ... at y, a number or a tensor, by Bonnet's recursion."""
    before, now = 0 * y + 1, y
    for k in count(1):
        yield now
        before, now = now, ((2 * k + 1) * y * now - k * before) / (k + 1)
