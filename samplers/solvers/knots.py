"""The parameters of `auto` by the number of steps, fitted over families of random fields.

`KNOTS` are those of any field: their first step is short, because Euler's error there limits all
later ones. `SHIFTED` are those of a field with a `time_shift`, which shortens the beginning by
itself; the shifts of the packaged model were chosen with them.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import lru_cache

Polynomial = tuple[float, ...]  # coefficients of Legendre's polynomials P_0, P_1, ... in y


@dataclass(frozen=True)
class Knot:
    """The parameters fitted for a number of steps; between two knots they are interpolated.

    The n steps lie at y = -1 + 1/n, -1 + 3/n, ... 1 - 1/n. Step lengths are proportional to
    exp(sum_k tilt_k P_k(y)), the first one times `first`. `predict` and `correct` are the weights,
    as polynomials in y, of the rules through two, three, ... values; the remainder goes to Euler's
    rule, and to no correction.
    """

    steps: int
    tilt: Polynomial
    predict: tuple[Polynomial, ...]
    correct: tuple[Polynomial, ...]
    first: float = 1.0  # of its length: Euler's first step limits what all others reach


KNOTS = (
    Knot(
        steps=4,
        first=0.713,
        tilt=(-0.96, -0.442, -0.699, -0.308, -0.276, 0.074),
        predict=((0.656, 0.193, 0.626), (0.002, -0.958, 0.271), (0.031, 0.105, 0.026)),
        correct=(
            (0.333, 0.014, 0.09),
            (0.493, -0.217, 0.065),
            (-0.082, -0.118, -0.069),
            (-0.056, -0.022, -0.092),
        ),
    ),
    Knot(
        steps=6,
        first=0.738,
        tilt=(-0.812, -0.586, -0.661, -0.121, -0.296, 0.053),
        predict=((0.646, -0.009, 0.008), (0.039, -0.889, 0.059), (-0.031, -0.054, -0.055)),
        correct=(
            (0.396, 0.112, 0.121),
            (0.637, -0.122, 0.061),
            (-0.103, -0.046, 0.0),
            (-0.015, 0.045, -0.035),
        ),
    ),
    Knot(
        steps=8,
        first=0.639,
        tilt=(-0.495, -0.672, -0.561, -0.391, -0.331, 0.103),
        predict=((0.843, 0.437, 1.045), (0.313, -0.558, -0.446), (-0.037, -0.276, -0.066)),
        correct=(
            (0.029, -0.032, 0.253),
            (0.453, 0.104, -0.028),
            (0.333, -0.262, 0.171),
            (0.16, 0.082, -0.141),
        ),
    ),
    Knot(
        steps=10,
        first=0.497,
        tilt=(-0.557, -0.652, -0.499, -0.33, -0.174, 0.097),
        predict=((0.799, 0.689, 1.266), (0.292, -0.749, -0.713), (-0.028, -0.157, -0.211)),
        correct=(
            (-0.088, -0.233, 0.104),
            (0.37, 0.191, -0.17),
            (0.59, -0.118, 0.15),
            (0.027, 0.095, 0.021),
        ),
    ),
    Knot(
        steps=16,
        first=0.073,
        tilt=(-0.35, -0.662, -0.356, -0.428, -0.003, -0.112),
        predict=((0.41, 0.498, 0.962), (0.307, -0.485, -0.557), (0.278, -0.064, -0.425)),
        correct=(
            (-0.027, -0.109, -0.13),
            (0.448, 0.119, -0.079),
            (0.523, -0.14, 0.161),
            (-0.005, 0.136, 0.011),
        ),
    ),
    Knot(
        steps=32,
        first=0.1,
        tilt=(-0.663, -0.868, -0.397, -0.329, 0.055, -0.149),
        predict=((0.33, 0.286, 0.616), (-0.027, -0.251, -0.181), (0.748, 0.032, -0.313)),
        correct=(
            (-0.102, -0.188, -0.197),
            (0.322, 0.012, -0.114),
            (0.584, -0.029, 0.196),
            (0.186, 0.209, 0.113),
        ),
    ),
)
# of fields with a time shift
SHIFTED = (
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
DENSEST = Knot(
    64, (0.0, -0.22, -0.19, -0.17, 0.05, 0.0), (NONE, NONE, ALL), (NONE, NONE, NONE, ALL)
)
KNOTS += (replace(DENSEST, first=0.3),)
SHIFTED += (DENSEST,)
# on a part of the path the place along it says nothing: orders 2 and 3, or 3 and 4 of dense steps
PART = Knot(1, (), ((1.0,), (0.0,)), ((0.0,), (1.0,)))
DENSE_PART = Knot(1, (), ((0.0,), (1.0,)), ((0.0,), (0.0,), (1.0,)))
DENSE = 12  # steps per unit of time
MOST = 0.85  # of the path is as good as the whole


def knot_for(n: int, length: float, shifted: bool = False) -> Knot:
    """Returns the parameters of n steps over this much of the path."""
    if length >= MOST:
        return knot_of(n, shifted)
    return DENSE_PART if n >= DENSE * length else PART


@lru_cache(maxsize=256)
def knot_of(n: int, shifted: bool = False) -> Knot:
    """Returns n steps' parameters, interpolated in log n between knots, beyond them the nearest."""
    knots = SHIFTED if shifted else KNOTS
    i = bisect_right(knots, n, key=lambda k: k.steps)
    below, above = knots[max(0, i - 1)], knots[min(i, len(knots) - 1)]
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
        first=below.first + share * (above.first - below.first),
    )
