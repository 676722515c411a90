"""Shorter rules for `auto` where the velocities turn: in predictions from six steps on, and in the
first correction up to seven.

High orders pay while the differences of the velocities shrink with their order. Under strong
guidance, or after a jump, a velocity may turn within a step. Its second difference is then as large
as the velocity itself, and Euler's rule predicts better than longer ones. The ratio of the two
needs no evaluation, and moves each sample's prediction towards Euler's. The first correction is
undone in the same way where it is larger than the step: under strong guidance Euler's first step
may overshoot, and the velocity found there says little about the way to it. Later corrections are
kept. Where a field declares a jump within a step, runs of six to ten steps ignore the velocities
before it.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise, zip_longest

import torch
from torch import Tensor

from samplers.solver_registry import advance
from samplers.solvers.adams import Form, move

FEWEST, MOST = 6, 64  # numbers of steps with which velocities are compared
CORRECTS = range(3, 8)  # numbers of steps with which the first correction may be undone
OVERSHOT = 1.75  # of the step: half of a correction this large is undone
FORGETS = range(FEWEST, 11)  # numbers of steps that ignore the velocities before a jump
LOOKS = 8  # least number of comparisons in a run
# by the least number of steps: with a second difference this large, of a step, half of the
# prediction is Euler's
LARGE = {6: 1.0, 8: 0.37}
TINY, FAR = 1e-10, 1e3  # smallest norm, largest ratio of norms

Row = tuple[float, ...]  # weights of the newest velocity, the one before, ...


def doubts(ts: Sequence[float]) -> bool:
    """Returns whether a run on this grid compares its velocities."""
    return FEWEST <= len(ts) - 1 <= MOST


@lru_cache(maxsize=256)
def looks(ts: tuple[float, ...]) -> tuple[Row, ...]:
    """Returns the weights of the second difference in every step of a run on this grid.

    They are what the rule through three velocities adds to the one through two, divided by LARGE
    times the step, and empty in steps without a comparison. A run without any has none.
    """
    n = len(ts) - 1
    if not doubts(ts):
        return ()
    every, large = max(1, n // LOOKS), sized(LARGE, n)
    return tuple(difference(ts, i, 3, large) if i > 1 and i % every == 0 else () for i in range(n))


def sized(sizes: dict[int, float], n: int) -> float:
    """Returns the entry of the largest key up to n."""
    return next(size for k, size in reversed(sizes.items()) if k <= n)


def overshot(ts: Sequence[float], correct: Row) -> Row:
    """Returns the weights of the first prediction less its correction, over OVERSHOT steps.

    They are of the second velocity and the first; `correct` are those of the corrected step. None
    are returned for a run that takes its first correction as it is.
    """
    if len(ts) - 1 not in CORRECTS:
        return ()
    step = ts[1] - ts[0]
    return tuple(w / (OVERSHOT * step) for w in minus((0.0, step), correct))


def crossed(ts: Sequence[float], jumps: Iterable[float]) -> frozenset[int]:
    """Returns the indices i for which few steps forget: a jump lies between ts[i - 1] and ts[i]."""
    if len(ts) - 1 not in FORGETS:
        return frozenset()
    inside = [(min(a, b), max(a, b)) for a, b in pairwise(ts)]
    return frozenset(i for i, (a, b) in enumerate(inside, 1) for t in jumps if a < t < b)


def difference(ts: tuple[float, ...], i: int, points: int, large: float) -> Row:
    """Returns what the rule through so many velocities adds to the one through one less.

    The weights are those of step i, over `large` times the step.
    """
    fewer, more = (
        move(Form(), ts[i], ts[i + 1], [ts[i - j] for j in range(known)]).weights
        for known in (points - 1, points)
    )
    scale = 1 / (large * (ts[i + 1] - ts[i]))
    return tuple(scale * w for w in minus(more, fewer))


def minus(a: Row, b: Row) -> Row:
    return tuple(p - q for p, q in zip_longest(a, b, fillvalue=0.0))


def turn(known: Sequence[Tensor], second: Row) -> Tensor:
    """Returns r^4, r = |second| / |v|, of each sample, (B, 1, ..., 1), at most 1e12.

    v is the newest of the velocities `known`; `second` are the weights of their second difference,
    or of what `overshot` returns.
    """
    newest, change = norms(known[0]), norms(weighed(second, known))
    ratio = (change / newest.clamp_min(TINY)).nan_to_num(0.0)  # NaN if squares overflow
    return ratio.clamp(max=FAR) ** 4


def norms(k: Tensor) -> Tensor:
    """Returns the norm of each sample, (B, ...) -> (B, 1, ..., 1)."""
    if k.ndim == 1:
        return k.abs()
    return torch.linalg.vector_norm(k, dim=tuple(range(1, k.ndim)), keepdim=True)


def weighed(row: Row, known: Iterable[Tensor]) -> Tensor:
    """Returns the sum of the velocities times the weights of the row."""
    (w, k), *rest = zip(row, known, strict=False)
    return advance(w * k, *rest)
