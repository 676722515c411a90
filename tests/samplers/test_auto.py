"""`auto` and the pilot, beside every peer, on fields that no number was fitted to.

The table of the judged fields comes from `python -m checks.heldout`.
"""

import math
from itertools import pairwise

import pytest
import torch

from checks.heldout import BOUNDS, FIELDS, error, measure
from samplers import PROBLEMS, SOLVERS, PilotGrid, count, pilot, sample, tilted, uniform
from samplers.search.pilot import equal_shares
from samplers.solvers.auto import CHOICES

FEW = [name for name in FIELDS if name != "digits"][:6]


@pytest.mark.parametrize("calls", [4, 8, 16])
def test_auto_and_the_pilot_beat_every_peer_by_the_bounds(calls):
    ratios = [measure(FIELDS[name], calls, samples=32) for name in FEW]
    own, placed = (sum(r[key] for r in ratios) / len(ratios) for key in ("own", "pilot"))
    assert own <= BOUNDS[calls][0] * 1.15  # 32 samples of six fields scatter; the script has all
    assert placed <= BOUNDS[calls][1] * 1.15


def test_more_calls_make_less_error():
    problem = PROBLEMS["mixture"](dim=8, seed=31)
    noise = problem.noise(64)
    errors = [
        error(sample(problem.velocity, noise, n, "auto"), problem.solution(noise))
        for n in (1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 26, 32, 40, 48, 64, 100)
    ]
    assert all(b < a for a, b in pairwise(errors))


def test_the_table_of_auto_is_sorted_and_keeps_its_declared_order():
    steps = [c.steps for c in CHOICES]
    assert steps == sorted(set(steps)) and steps[0] == 1
    assert CHOICES[-1].scheme.order >= SOLVERS["auto"].order


def test_the_own_grid_goes_over_from_entry_to_entry():
    for n in range(2, 70):
        here, there = tilted(n), tilted(n + 1)
        middle = (float(g[len(g) // 2]) for g in (here, there))
        assert abs(math.dist(*([m] for m in middle))) < 1 / n


@pytest.fixture(scope="module")
def found():
    problem = PROBLEMS["mixture"](dim=4, modes=5, seed=21)
    v = count(problem.velocity)
    made = pilot(v, problem.noise(8, 1), 8, looks=30, settings={"model": "mixture", "cfg": 2.0})
    return problem, made, v.calls


def test_the_pilots_grid_is_a_grid_and_better_on_other_noise(found):
    problem, made, _ = found
    assert len(made) == 9 and made.times[0] == 0 and made.times[-1] == 1
    noise = problem.noise(64, 2)
    errors = [
        error(sample(problem.velocity, noise, ts, "auto"), problem.solution(noise))
        for ts in (made, 8)
    ]
    assert errors[0] < errors[1]
    assert made.error < made.before


def test_the_pilot_reports_what_it_cost(found):
    _, made, calls = found
    assert made.evaluations == calls == 64 + 8 * (2 + 28)
    assert made.samples == 8


def test_a_grid_is_saved_and_loaded_for_the_same_field_only(found, tmp_path):
    _, made, _ = found
    made.save(tmp_path / "grid.json")
    assert PilotGrid.load(tmp_path / "grid.json") == made
    same = PilotGrid.load(tmp_path / "grid.json", {"cfg": 2.0, "model": "mixture"})
    assert same.fingerprint == made.fingerprint and torch.equal(same.ts, made.ts)
    with pytest.raises(ValueError, match="was made for"):
        PilotGrid.load(tmp_path / "grid.json", {"model": "mixture", "cfg": 3.0})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pilot grid 1", "pilot grid 9", "not a grid saved by"),
        ('"cfg": 2.0', '"cfg": 5.0', "was made for"),
        ('"samples"', '"simples"', "lacks"),
    ],
)
def test_a_file_that_was_tampered_with_is_refused(found, tmp_path, old, new, message):
    path = tmp_path / "grid.json"
    found[1].save(path)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        PilotGrid.load(path)


def test_a_pilot_serves_any_solver_with_steps_of_its_own_cost():
    problem = PROBLEMS["mixture"](dim=4, modes=5, seed=22)
    made = pilot(problem.velocity, problem.noise(4), 8, "midpoint", looks=20)
    assert len(made) == 5 and made.solver == "midpoint" and made.error <= made.before


def test_a_straight_field_keeps_its_grid():
    made = pilot(lambda x, _: torch.ones_like(x), torch.zeros(2, 3).double(), 4, "euler", looks=6)
    assert made.ts.tolist() == pytest.approx(uniform(4).tolist())


def test_equal_shares_put_the_steps_where_the_path_bends():
    ts = uniform(64)
    fine = [(t, torch.tanh(20 * (t - 0.7)).reshape(1, 1)) for t in ts]
    shares = equal_shares(fine, 10, 2)
    assert (shares.diff() > 0).all() and 0.55 < shares[shares.diff().argmin()] < 0.8
