"""Intervals and tests of shares: each has the property that it promises."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest

from janusflow.evaluation.intervals import bootstrap, mcnemar, overall, signs, wilson


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)],
)
def test_wilson_agrees_with_newcombe_1998(right, total, low, high):
    assert wilson(right, total) == pytest.approx((low, high), abs=6e-5)
    mirrored = wilson(total - right, total)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=6e-5)


def test_wilson_bounds_are_where_the_score_test_is_just_rejected():
    for right, total in ((3, 7), (40, 50), (199, 400)):
        for p in wilson(right, total):
            assert abs(right / total - p) == pytest.approx(1.959964 * (p * (1 - p) / total) ** 0.5)
    with pytest.raises(ValueError, match="expected 0 <= right <= total"):
        wilson(3, 2)


def test_mcnemar_is_the_sign_test_on_the_pairs_that_disagree():
    for a, b in ((0, 0), (3, 3), (0, 5), (12, 4), (700, 800)):
        tail = sum(comb(a + b, k) for k in range(min(a, b) + 1))  # 2 P(Binomial(n, 1/2) <= least)
        expected = min(1.0, float(Fraction(2 * tail, 2 ** (a + b))))
        assert mcnemar(a, b) == mcnemar(b, a) == pytest.approx(expected)


def test_random_signs_reject_at_their_level_and_see_a_shift():
    rng, trials = np.random.default_rng(0), 200
    noise = rng.normal(size=(trials, 30)).repeat(4, axis=1)  # four alike of each text
    texts = np.arange(30).repeat(4)
    level = np.mean([signs(row, texts, draws=199) < 0.05 for row in noise])
    assert level <= 0.1 and signs(noise[0] + 1, texts) < 0.01
    assert signs([0.0, 0.0], [0, 1]) == 1


def test_the_bootstrap_over_texts_covers_the_truth_where_pictures_are_alike():
    rng, hits, trials = np.random.default_rng(1), 0, 200
    for _ in range(trials):
        groups = []
        for mean in (2, 5):  # Beta(mean, 3): a text's own difficulty, shared by its images
            hard = rng.beta(mean, 3, size=60)
            groups.append((rng.binomial(1, hard.repeat(4)), np.arange(60).repeat(4)))
        low, high = bootstrap(groups, draws=400)
        hits += low <= (2 / 5 + 5 / 8) / 2 <= high
    assert 0.90 <= hits / trials <= 0.985


def test_bootstrap_over_single_answers_has_the_binomial_width():
    values = [1] * 300 + [0] * 100
    low, high = bootstrap([(values, range(400))])
    assert high - low == pytest.approx(2 * 1.96 * (0.75 * 0.25 / 400) ** 0.5, rel=0.08)
    four_alike = bootstrap([(values, np.arange(400) // 4)])
    assert four_alike.high - four_alike.low == pytest.approx(2 * (high - low), rel=0.1)


def test_all_right_is_not_certainty():
    assert overall([([True] * 8, [0, 0, 1, 1, 2, 2, 3, 3])]) == wilson(4, 4)
    assert overall([([True], [0]), ([False], [1]), ([True], [2])]) == wilson(2, 3)
    assert overall([([7.0], [0]), ([9.0], [1])]) == (8.0, 8.0)  # a distance has no such interval
    assert overall([([False, False], [0, 1]), ([False], [0])]) == wilson(0, 3)
