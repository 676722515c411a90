"""Algorithms on rewards in the plane: each raises what it learns from."""

import pytest

from studies import reward_algorithms as study


@pytest.fixture(scope="module")
def base():
    return study.base_model(0, steps=300)


@pytest.mark.parametrize("name", study.ALGORITHMS)
def test_every_algorithm_raises_the_reward_it_learns_from(base, name, monkeypatch):
    monkeypatch.setattr(study, "STEPS", 30)
    first, last = (study.learn(name, "weak", 1e-3, 0, base)[i]["weak"] for i in (0, -1))
    assert last > first + 0.02


def test_the_curves_of_three_seeds_make_rows_and_a_figure(monkeypatch):
    for name, value in (("STEPS", 2), ("EVERY", 1), ("RATES", (1e-3,)), ("TESTED", 64)):
        monkeypatch.setattr(study, name, value)
    monkeypatch.setattr(study, "base_model", lambda _seed: study.Net())
    rows = study.curves()
    assert len(rows) == 2 * len(study.ALGORITHMS) * 3
    middle, low, high = rows[0]["gold"]
    assert low <= middle <= high
    assert len(study.figure(rows).axes) == 3
