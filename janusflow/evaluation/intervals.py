"""Confidence intervals and tests for shares of correct answers, from scipy, and our own for
clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

DRAWS = 2000  # resamples of a bootstrap
SEED = 0  # of the resamples, so that the same scores give the same interval


class Interval(NamedTuple):
    """The lower and upper bound of a 95 % interval."""

    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        return self.low <= other.high and other.low <= self.high


def wilson(right: int, total: int) -> Interval:
    """(p + z^2/2n -+ z sqrt(p q / n + z^2/4n^2)) / (1 + z^2/n); Wilson 1927.

    It assumes independent trials. Raises ValueError unless 0 <= right <= total and total > 0.
    """
    if not 0 <= right <= total or total < 1:
        raise ValueError(
            f"{right} answers of {total} are correct; expected 0 <= right <= total and total >= 1"
        )
    from scipy.stats import binomtest

    return Interval(*map(float, binomtest(right, total).proportion_ci(method="wilson")))


def _sums(values: Sequence[float], clusters: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """Returns sum and number of the values of each cluster."""
    _, where = np.unique(np.asarray(clusters), return_inverse=True)
    return np.bincount(where, weights=np.asarray(values, float)), np.bincount(where)


def bootstrap(groups: Sequence[tuple[Sequence[float], Sequence]], draws: int = DRAWS) -> Interval:
    """Returns the percentile bootstrap interval of the mean of the groups' means; Efron 1979.

    A group is (values, clusters), one of each per image. Within each group whole clusters (the
    images of one prompt) are drawn with replacement, because their images are not independent.
    Without any variation the interval is a point.
    """
    rng = np.random.default_rng(SEED)
    total = np.zeros(draws)
    for values, clusters in groups:
        sums, sizes = _sums(values, clusters)
        drawn = rng.integers(len(sums), size=(draws, len(sums)))
        total += sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.quantile(total / len(groups), (0.025, 0.975))
    return Interval(float(low), float(high))


def share(values: Sequence[float], clusters: Sequence) -> Interval:
    """Returns a group's interval: Wilson's for right or wrong, the bootstrap for fractions."""
    if set(values) <= {0, 1}:
        return wilson(int(sum(values)), len(values))
    return bootstrap([(values, clusters)])


def overall(groups: Sequence[tuple[Sequence[float], Sequence]]) -> Interval:
    """Returns the bootstrap interval.

    For right and wrong it is Wilson's of the clusters if the clusters of no group differ, as with
    one prompt in each.
    """
    found, seen = bootstrap(groups), {float(value) for values, _ in groups for value in values}
    if found.low < found.high or not seen <= {0.0, 1.0}:
        return found
    trials = sum(len(set(clusters)) for _, clusters in groups)
    return wilson(round(found.low * trials), trials)


def mcnemar(only_a: int, only_b: int) -> float:
    """Returns the two-sided exact p of discordant pairs: 2 P(Binomial(n, 1/2) <= min), at most 1.

    `only_a` images are correct in a alone, `only_b` in b alone. McNemar 1947.
    """
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def signs(differences: Sequence[float], clusters: Sequence, draws: int = 9999) -> float:
    """Returns the two-sided p of paired differences by a sign-flip test over clusters.

    It is the fraction of random sign flips of whole clusters whose sum is at least as far from
    zero, counting the sample itself as one draw. Fisher 1935.
    """
    sums, _ = _sums(differences, clusters)
    flips = np.random.default_rng(SEED).choice([-1.0, 1.0], size=(draws, len(sums)))
    further = abs(flips @ sums) >= abs(sums.sum()) - 1e-12
    return float((1 + further.sum()) / (1 + draws))


def kappa(pairs: Sequence[tuple[bool, bool]]) -> float | None:
    """(agreement - chance) / (1 - chance) of two raters, with chance from their own rates of yes.

    None if the agreement by chance is 1. Cohen 1960.
    """
    n = len(pairs)
    one, two = (sum(side) / n for side in zip(*pairs, strict=True))
    chance = one * two + (1 - one) * (1 - two)
    agreed = sum(a == b for a, b in pairs) / n
    return None if chance == 1 else (agreed - chance) / (1 - chance)
