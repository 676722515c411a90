"""Where `auto` trusts: on smooth fields that are no flow to data it follows the longest rules.

The blend of `auto` was fitted to flows to data, whose velocities begin as mean - noise. A smooth
network gains orders of magnitude from high orders, once its first steps are accurate, which is why
the first step of the own grid is short. Two ratios of each sample tell such a field, at no call:
its first velocity does not point against the noise, and the second difference of its velocities is
far smaller than they are. Such a sample moves to the rules of highest order, others keep the blend.
"""

from functools import lru_cache
from typing import NamedTuple

from torch import Tensor

from samplers.solvers.adams import Form, move
from samplers.solvers.caution import FAR, LARGE, TINY, Row, difference, doubts, sized

STEPS = range(4, 41)  # of a run that trusts; at 64 the blend has only the highest orders
WHOLE = 0.85  # of the path, at least, from its beginning: the first state has to be the noise
POINTS = 4  # of the longest prediction; a correction has the new one too
# over n^2, of a step, by the least number of steps n: a second difference this large is half
# trusted
SMALL = {4: 2.0, 6: 10.0, 16: 20.0}
AGAINST = 0.33  # 1 + cos of the angle between velocity and noise that is half trusted


class Trust(NamedTuple):
    """A step's weights by the longest rules, which correct the last step and predict this one.

    `small` are the weights of the difference of velocities over what is small, in steps without a
    look of `caution`; where it looks, its r^4 times `scale` is that of this difference.
    """

    correct: Row
    predict: Row
    small: Row
    scale: float


@lru_cache(maxsize=256)
def trusts(ts: tuple[float, ...]) -> tuple[Trust, ...]:
    """Returns these for every step of a run, none if the run does not trust."""
    n = len(ts) - 1
    if n not in STEPS or ts[-1] - ts[0] < WHOLE:
        return ()
    bound = sized(SMALL, n) / n**2
    scale = (sized(LARGE, n) / bound) ** 4 if doubts(ts) else 1.0
    made = [Trust((), longest(ts, 0, 0), (), scale)]
    for i in range(1, n):
        small = () if i > 1 and doubts(ts) else smooth(ts, i, bound)
        made.append(Trust(longest(ts, i - 1, i), longest(ts, i, i), small, scale))
    return tuple(made)


def smooth(ts: tuple[float, ...], i: int, bound: float) -> Row:
    """Returns the weights of the second difference over its bound, at first those of the first."""
    return difference(ts, i, 3, bound) if i > 1 else difference(ts, i, 2, bound**0.5)


def longest(ts: tuple[float, ...], step: int, newest: int) -> Row:
    """Returns the weights of a step by the rule through the newest velocities.

    They are POINTS up to the step's beginning, and one more if its end is known.
    """
    points = min(newest + 1, POINTS + newest - step)
    nodes = [ts[newest - j] for j in range(points)]
    return move(Form(), ts[step], ts[step + 1], nodes).weights


def turned(first: Tensor, noise: Tensor) -> Tensor:
    """Returns r^4 / (1 + r^4), r = (1 + cos) / AGAINST, by the angle of velocity and noise.

    It is 0 for a velocity straight against the noise, and near 1 from a right angle on.
    """
    a, b = (x.reshape(len(x), -1) for x in (first, noise))
    sizes = (a.square().sum(1) * b.square().sum(1) + TINY**2).rsqrt()
    power = ((1 + (a * b).sum(1) * sizes) / AGAINST).nan_to_num(0.0).clamp(0, FAR) ** 4
    return (power / (1 + power)).reshape(-1, *[1] * (noise.ndim - 1))
