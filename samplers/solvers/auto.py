"""The default solver: a blend of Adams rules of several orders, on a grid of its own.

High orders help where a field is smooth and hurt where it is not, which depends on the time and on
the number of steps. So every step is a weighted mean of the rules of orders one to five, with
weights that were fitted once over families of fields (`KNOTS`). A run of four steps adapts to each
sample (`leaning`), others where a velocity turns fast (`caution`); `pilot` adapts to the field for
any number.
"""

from array import array
from collections import deque
from collections.abc import Iterable
from functools import lru_cache
from itertools import count, islice, zip_longest
from typing import NamedTuple

import torch
from torch import Tensor

from samplers.fields import jumps_of, time_shift_of
from samplers.grids import grid, pin, uniform
from samplers.solver_registry import Path, Velocity, solver
from samplers.solvers.adams import Form, Scheme, adams, move
from samplers.solvers.caution import (
    CORRECTS,
    Row,
    crossed,
    doubts,
    looks,
    overshot,
    turn,
)
from samplers.solvers.knots import Polynomial, knot_for, knot_of
from samplers.solvers.leaning import lean as leaned
from samplers.solvers.leaning import leans
from samplers.solvers.trust import Trust, drifts, trusts, turned

DEPTH = 5  # values that the longest rule looks back over
MANY = Scheme(5, 6, renewed=False)  # beyond MANY_STEPS, order is all
MANY_STEPS = 64


@solver(order=3, grid="tilted", shifts=True)
def auto(v: Velocity, x: Tensor, ts: Tensor, lean: bool = True) -> Path:
    """Predict, evaluate, correct, by a blend of Adams rules that suits the number of steps.

    The rule depends on each sample's velocities, unless `lean` is False, which makes it linear in
    them: with four steps, all predictions but the first have weights of their own; with six or
    more, a prediction is nearer to Euler's where velocities turn fast; up to seven, the first
    correction is left out where it exceeds the step. Beyond 64 steps a scheme of fixed order is
    used, whose start is of order three. For fields with an attribute `time_shift` c, as of models
    trained with a shift, the solver's own grid becomes t / (c - (c - 1) t).
    """
    if len(ts) - 1 > MANY_STEPS:
        yield from adams(v, x, ts, MANY)
        return
    run = program(tuple(ts.tolist()), time_shift_of(v) != 1, jumps_of(v), lean)
    tables = torch.frombuffer(run.tables, dtype=torch.float64).to(x.dtype).to(x.device)
    yield from follow(v, x, ts[:-1].unbind(), run, tables)


class Program(NamedTuple):
    """What a run computes with, known from its grid before the first evaluation."""

    times: tuple[float, ...]
    shifted: bool
    tables: array  # (3, n, DEPTH, 2): weights of the blend, the careful and the longest rules
    looks: tuple[Row, ...]  # of `caution`, empty in steps that do not look
    trust: tuple[Trust, ...]
    behind: tuple[int, ...]  # steps that forget
    leaning: bool


def follow(v: Velocity, x: Tensor, ts: Iterable[Tensor], run: Program, tables: Tensor) -> Path:
    """Yields the states of a run.

    Each step moves the last corrected state to this step's start and to its predicted end, by two
    sums of the same velocities. A sample's weights lie between those of three rules.
    """
    known: deque[Tensor] = deque(maxlen=DEPTH)
    noise, ahead, doubted, share = x, x, None, None
    tables = tables.reshape(3, -1, DEPTH, 2, *[1] * x.ndim)
    rules = zip(*(table.unbind() for table in tables.unbind()), strict=True)
    for i, (t, look, three) in enumerate(zip(ts, run.looks, rules, strict=True)):
        known.appendleft(v(ahead, t))
        weights, careful, longest = three
        if look:
            power = turn(known, look)
            doubted = power / (1 + power)
        if run.trust and not i:
            facing, drift = turned(known[0], noise), drifts(known[0], noise)
        elif run.trust and run.trust[i].small:
            share = facing / (1 + drift * turn(known, run.trust[i].small))
        elif run.trust and look:
            share = facing / (1 + run.trust[i].scale * drift * power)
        if doubted is not None:
            weights = torch.lerp(weights, careful, doubted)
        if run.leaning:
            weights = leaned(weights, noise, list(known), run.times, run.shifted)
        if share is not None:
            weights = torch.lerp(weights, longest, share)
        start, end = weighed(weights, known)
        x, ahead = x + start, x + end
        if i:
            yield x
        if i in run.behind:
            known = deque([known[0]] * len(known), maxlen=DEPTH)
    yield ahead


def weighed(weights: Tensor, known: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """Returns two sums of velocities (B, ...), whose weights are (DEPTH, 2, B or 1, ...).

    A product of matrices would be faster, but its rounding depends on the size of the batch.
    """
    (w, k), *rest = zip(weights.unbind(), known, strict=False)
    sums = w * k
    for w, k in rest:
        sums = torch.addcmul(sums, w, k)
    return sums.unbind()


@lru_cache(maxsize=256)
def program(
    ts: tuple[float, ...], shifted: bool = False, jumps: tuple[float, ...] = (), lean: bool = True
) -> Program:
    """Returns what a run on this grid computes with."""
    rows, n = plan(ts, shifted), len(ts) - 1
    seen = [*(looks(ts) if lean else ()), *[()] * n][:n]
    if lean and n > 1:
        seen[1] = overshot(ts, rows[1][0])
    trust, behind = trusts(ts) if lean and not shifted else (), crossed(ts, jumps)
    tables = [array("d") for _ in range(3)]
    for i, rule in enumerate(rows):
        three = rule, careful(ts, i, rule), trust[i][:2] if trust else rule
        for table, (correct, predict) in zip(tables, three, strict=True):
            predict = (ts[i + 1] - ts[i],) if i in behind else predict
            table.extend(entries(correct, predict))
    joined = tables[0] + tables[1] + tables[2]
    return Program(ts, shifted, joined, tuple(seen), trust, (*behind,), lean and leans(ts))


def careful(ts: tuple[float, ...], i: int, rule: tuple[Row, Row]) -> tuple[Row, Row]:
    """Returns the rule for uncertain steps: the first correction, or predictions of many steps."""
    correct, predict = rule
    if i == 1:
        return (0.0, ts[1] - ts[0]), predict  # the first step as it was predicted
    return correct, (ts[i + 1] - ts[i],) if doubts(ts) else predict


def entries(correct: Row, predict: Row) -> list[float]:
    """Returns weights from the last corrected state to a step's start and end, newest first."""
    pairs = zip_longest(correct, add(correct, predict, 1.0), fillvalue=0.0)
    flat = [w for pair in pairs for w in pair]
    return flat + [0.0] * (2 * DEPTH - len(flat))


def adapts(ts: Tensor) -> bool:
    """Returns whether a run on this grid depends on the velocities other than linearly."""
    return leans(ts) or doubts(ts) or len(ts) - 1 in CORRECTS


@lru_cache(maxsize=256)
def plan(ts: tuple[float, ...], shifted: bool = False) -> tuple[tuple[Row, Row], ...]:
    """Returns each step's weights once its velocity is known: correct the last, predict this."""
    n = len(ts) - 1
    knot = knot_for(n, abs(ts[-1] - ts[0]), shifted)
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


@grid
def tilted(
    n: int,
    tilt: tuple[float, ...] | None = None,
    first: float | None = None,
    shifted: bool = False,
) -> Tensor:
    """Steps proportional to exp(sum_k tilt_k P_k(y)), y from -1 to 1, with Legendre
    polynomials P_k, the first one times `first`.

    Without `tilt` and `first` it is the grid of `auto` for n steps, whose first step is short, or
    the one that a field's time shift moves if `shifted`; a tilt alone leaves the first step as is.
    """
    knot = knot_of(n, shifted)
    if first is None:
        first = knot.first if tilt is None else 1.0
    steps = tilt_steps(uniform(n), knot.tilt if tilt is None else tilt).diff()
    steps[0] *= first
    return _placed(steps)


def tilt_steps(ts: Tensor, tilt: Iterable[float]) -> Tensor:
    """Returns the grid from 0 to 1 with the steps of ts, tilted."""
    u = uniform(len(ts) - 1)
    y = u[1:] + u[:-1] - 1  # the middles of the steps
    logs = sum((a * p for a, p in zip(tilt, _legendre(y), strict=False)), ts.diff().log())
    return _placed(logs.exp())


def _placed(steps: Tensor) -> Tensor:
    """Returns the grid from 0 to 1 with steps in these proportions."""
    ends = torch.cat([torch.zeros(1, dtype=torch.float64, device="cpu"), steps.cumsum(0)])
    return pin(ends / ends[-1])


def _legendre(y):
    """Returns P_1, P_2, ... at y, a number or a tensor, by Bonnet's recursion."""
    before, now = 0 * y + 1, y
    for k in count(1):
        yield now
        before, now = now, ((2 * k + 1) * y * now - k * before) / (k + 1)
