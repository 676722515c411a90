"""Rules of highest order for `auto` on smooth fields that do not lead from noise to data.

The weights of `auto` were fitted to flows from noise to data, whose velocities begin as mean -
noise. Other smooth fields gain orders of magnitude from high orders, once the first steps are
accurate; that is why the first step of `auto`'s own grid is short. Two ratios recognise such a
field for each sample, without further evaluations: its first velocity does not point against the
noise, and the second difference of its velocities is far smaller than they are. The weights of such
a sample move to the rules of highest order. Each of its first states is integrated again from the
noise, through all velocities so far. The first prediction can only be Euler's, so the second one
makes up for its error.
"""

from functools import lru_cache
from typing import NamedTuple

from torch import Tensor

from samplers.solvers.adams import Form, move
from samplers.solvers.caution import FAR, LARGE, TINY, Row, difference, doubts, minus, norms, sized

STEPS = range(4, 41)  # numbers of steps that use these rules; with 64 `auto` has no other weights
WHOLE = 0.85  # least fraction of the path, from its beginning: the first state has to be the noise
POINTS = 4  # velocities of the longest prediction; a correction also uses the new one
# by the least number of steps n: with a second difference of this over n^2, of a step, half of the
# weight goes to these rules
SMALL = {4: 2.0, 6: 10.0, 16: 20.0}
AGAINST = 0.33  # the same for 1 + cos of the angle between velocity and noise


class Trust(NamedTuple):
    """Weights of a step by the rules of highest order: to correct the last step, to predict this.

    `small` are the weights of the velocities' difference, divided by its bound. They are empty in
    steps where `caution` measures the same difference: its r^4 times `scale` is then used instead.
    """

    correct: Row
    predict: Row
    small: Row
    scale: float


@lru_cache(maxsize=256)
def trusts(ts: tuple[float, ...]) -> tuple[Trust, ...]:
    """Returns the weights for every step of a run, and none if the run does not use these rules."""
    n = len(ts) - 1
    if n not in STEPS or ts[-1] - ts[0] < WHOLE:
        return ()
    bound = sized(SMALL, n) / n**2
    scale = (sized(LARGE, n) / bound) ** 4 if doubts(ts) else 1.0
    made = []
    for i in range(n):
        small = () if not i or (i > 1 and doubts(ts)) else smooth(ts, i, bound)
        made.append(Trust(corrector(ts, i) if i else (), predictor(ts, i), small, scale))
    return tuple(made)


def smooth(ts: tuple[float, ...], i: int, bound: float) -> Row:
    """Returns the weights of the second difference (at step 1 the first) over its bound."""
    return difference(ts, i, 3, bound) if i > 1 else difference(ts, i, 2, bound**0.5)


def corrector(ts: tuple[float, ...], i: int) -> Row:
    """Returns the weights of step i - 1 by the rule through POINTS + 1 velocities up to its end.

    While no more are known, the path is integrated anew from the noise.
    """
    if i > POINTS:
        return through(ts, i - 1, i, i, POINTS + 1)
    return minus(through(ts, 0, i, i), (0.0, *through(ts, 0, i - 1, i - 1)))


def predictor(ts: tuple[float, ...], i: int) -> Row:
    """Returns the weights of step i by the rule through POINTS velocities up to its beginning."""
    row = through(ts, i, i + 1, i, POINTS)
    return minus(row, amends(ts)) if i == 1 and len(ts) > 3 else row


def amends(ts: tuple[float, ...]) -> Row:
    """Returns what the second prediction leaves out because Euler's step h lacks x'' h^2 / 2.

    Both errors are of the same direction, J x'', and cancel when the velocities found there are
    summed up with their weights in the state after POINTS steps.
    """
    h, end = ts[1] - ts[0], min(POINTS, len(ts) - 1)
    *_, third, second, _ = through(ts, 0, end, min(end, len(ts) - 2))
    change = second / third * h / 2
    return -change, change


def through(ts: tuple[float, ...], a: int, b: int, newest: int, points: int = POINTS + 1) -> Row:
    """Returns the weights from ts[a] to ts[b] of so many velocities, the newest at ts[newest]."""
    nodes = [ts[newest - j] for j in range(min(points, newest + 1))]
    return move(Form(), ts[a], ts[b], nodes).weights


def turned(first: Tensor, noise: Tensor) -> Tensor:
    """Returns r^8 / (1 + r^8), r = (1 + cos) / AGAINST, by the angle of velocity and noise.

    It is 0 for a velocity straight against the noise, and near 1 from a right angle on.
    """
    a, b = (x.reshape(len(x), -1) for x in (first, noise))
    sizes = (a.square().sum(1) * b.square().sum(1) + TINY**2).rsqrt()
    power = ((1 + (a * b).sum(1) * sizes) / AGAINST).nan_to_num(0.0).clamp(0, FAR) ** 8
    return (power / (1 + power)).reshape(-1, *[1] * (noise.ndim - 1))


def drifts(first: Tensor, noise: Tensor) -> Tensor:
    """Returns max(1, |v| / |noise|)^8, by which differences count more in a velocity that drifts.

    A flow to data far off the centre has one large velocity in common, which says nothing about how
    smooth the rest is.
    """
    ratio = norms(first) / norms(noise).clamp_min(TINY)
    return ratio.nan_to_num(1.0).clamp(1, FAR) ** 8
