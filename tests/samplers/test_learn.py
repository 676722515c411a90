"""Learned solvers: read off, trained, saved, and never trusted when loaded."""

import json

import pytest
import torch

import samplers
from samplers.benchmark.measure import fixed, judged
from samplers.benchmark.peers import peers
from samplers.benchmark.problems import gaussian, mixture
from samplers.search import learn
from samplers.search.learn import fit, fit_grid
from samplers.solvers.linear_multistep import learned, linearize, walk

FIELD = mixture(dim=2)


@pytest.fixture(scope="module")
def rule():
    """Four calls on the mixture in two dimensions, trained for a few seconds."""
    return fit(FIELD.velocity, FIELD.noise(256, seed=1), 4, iterations=150, name="four")


def e(x, noise):
    return judged(FIELD.solution(noise))(x)["e"]


@pytest.mark.parametrize("solver", fixed(), ids=lambda s: s.name)
def test_every_solver_with_fixed_steps_has_a_linear_multistep_rule(solver):
    solver, ts = solver.linear, samplers.shifted(6, 2.0)
    nodes, weights = linearize(solver, ts)
    noise = FIELD.noise(16)
    assert weights.shape == (solver.cost(6) + 1, solver.cost(6) + 1)

    def mix(row, known):
        return sum(w * k for w, k in zip(row, known, strict=False))

    *_, x = walk(FIELD.velocity, noise, nodes[:-1], weights[1:], mix)
    assert torch.allclose(x, samplers.sample(FIELD.velocity, noise, ts, solver), atol=1e-9)


def test_learning_beats_every_rule_it_could_start_from_on_other_noise(rule):
    noise = FIELD.noise(256, seed=2)
    best = min(
        e(samplers.sample(FIELD.velocity, noise, 4, name), noise)
        for name in ("euler", "midpoint", "heun", "ralston")
    )
    assert e(samplers.sample(FIELD.velocity, noise, 4, rule), noise) < best / 2


def test_a_learned_solver_spends_its_calls_in_order_inside_the_interval(rule):
    times = []

    def v(x, t):
        times.append(float(t))
        return FIELD.velocity(x, t)

    samplers.sample(v, FIELD.noise(3), 4, rule)
    assert len(times) == 4 and times == sorted(set(times))
    assert times[0] == 0 and times[-1] < 1


def test_a_learned_solver_is_a_solver_for_states_of_any_shape_and_dtype(rule):
    noise = torch.randn(2, 3, 4, 5)
    states = list(samplers.trajectory(lambda x, t: -x * t, noise, 4, rule))
    assert len(states) == 5 and states[-1][0] == 1
    assert all(x.shape == noise.shape and x.dtype == torch.float32 for _, x in states)


def test_a_learned_solver_refuses_other_grids_and_other_numbers_of_calls(rule):
    with pytest.raises(ValueError, match="learned its own times"):
        samplers.sample(FIELD.velocity, FIELD.noise(2), samplers.uniform(4), rule)
    with pytest.raises(ValueError, match="learned for 4 calls, not 5"):
        samplers.sample(FIELD.velocity, FIELD.noise(2), 5, rule)


def test_saving_and_loading_changes_no_bit(rule, tmp_path):
    path = tmp_path / "four.json"
    rule.save(path)
    again = learned(path)
    noise = FIELD.noise(8)
    assert path.stat().st_size < 4096 and again.name == "four"
    assert again.protocol == rule.protocol and again.protocol["start"] in samplers.SOLVERS
    assert torch.equal(
        samplers.sample(FIELD.velocity, noise, 4, rule),
        samplers.sample(FIELD.velocity, noise, 4, again),
    )


def spoil(content, spot, value):
    *path, last = spot
    for key in path:
        content = content[key]
    content[last] = value


@pytest.mark.parametrize(
    ("spot", "value", "message"),
    [
        (["format"], "other", "format"),
        (["name"], 7, "name or protocol"),
        (["protocol"], [], "name or protocol"),
        (["times"], [], "times are not"),
        (["times"], [0.0] * 65, "times are not"),
        (["times", 1], float("nan"), "times are not"),
        (["times", 1], "0.2", "times are not"),
        (["times", 0], 0.01, "do not rise from 0"),
        (["times", 2], 0.0, "do not rise"),
        (["times", 3], 1.0, "below 1"),
        (["weights"], {}, "N \\+ 1 rows"),
        (["weights", 2], [1.0], "triangle"),
        (["weights", 2, 1], True, "triangle"),
        (["weights", 2, 1], float("inf"), "triangle"),
        (["weights", 2, 1], 0.125, "fingerprint"),
    ],
)
def test_a_damaged_file_is_refused_and_says_why(rule, tmp_path, spot, value, message):
    path = tmp_path / "four.json"
    rule.save(path)
    content = json.loads(path.read_text())
    spoil(content, spot, value)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        learned(path)


@pytest.mark.parametrize("text", ["{", "[]", "\x00", '"samplers"'])
def test_a_file_that_is_something_else_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"not valid JSON|not a learned solver"):
        learned(tmp_path / "x.json")


@pytest.mark.parametrize(("calls", "bound"), [(4, 0.25), (6, 0.15), (8, 0.10), (10, 0.10)])
def test_the_rules_that_come_along_are_far_ahead_of_every_peer_on_their_field(calls, bound):
    field = mixture(dim=64)
    noise = field.noise(128, seed=3)
    judge = judged(field.solution(noise))
    theirs = [p for p in peers().values() if p.steps(calls) and not p.stochastic]
    best = min(judge(p.run(field.velocity, noise, calls))["e"] for p in theirs)
    rule = learned(f"mixture64-{calls}")
    assert judge(samplers.sample(field.velocity, noise, calls, rule))["e"] < bound * best


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="mixture64-6"):
        learned("nowhere")


def test_a_field_without_gradient_is_named_and_its_grid_can_still_be_fitted():
    @torch.no_grad()
    def v(x, t):
        return FIELD.velocity(x, t)

    noise = FIELD.noise(64, seed=1)
    with pytest.raises(ValueError, match="no gradient"):
        fit(v, noise, 4)
    grid = fit_grid(v, noise, 6, "midpoint", iterations=25)
    other = FIELD.noise(128, seed=2)
    fitted, own = (
        e(samplers.sample(v, other, ts, "midpoint"), other) for ts in (grid, samplers.uniform(3))
    )
    assert grid[0] == 0 and grid[-1] == 1 and (grid.diff() > 0).all()
    assert fitted < 0.9 * own


def test_training_that_goes_astray_falls_back_to_its_start():
    noise = FIELD.noise(32)
    lost = fit(FIELD.velocity, noise, 4, iterations=2, rate=1e3)
    assert lost.protocol["e_trained"] <= lost.protocol["e_start"]


def test_recomputing_the_forward_pass_changes_nothing():
    noise = FIELD.noise(32)
    plain, spared = (
        fit(FIELD.velocity, noise, 4, iterations=5, save_memory=m) for m in (False, True)
    )
    assert torch.allclose(plain.weights, spared.weights) and torch.equal(plain.nodes, spared.nodes)


def test_a_float32_field_is_learned_in_float32():
    field = gaussian(dim=3)
    noise = field.noise(64).float()

    def v(x, t):
        assert x.dtype == torch.float32
        return field.velocity(x.double(), t).float()

    found = fit(v, noise, 4, iterations=60, reference=1e-5)
    assert found.protocol["e_trained"] < found.protocol["e_start"] / 2


def test_the_command_line_learns_saves_and_compares(tmp_path, capsys):
    path = tmp_path / "g.json"
    arguments = ["--field", "gaussian:dim=2", "--calls", "4", "--out", str(path)]
    learn.main([*arguments, "--samples", "64", "--iterations", "60"])
    out = capsys.readouterr().out
    assert learned(path).protocol["samples"] == 64
    assert float(out.split("ratio ")[1].split()[0]) < 1


@pytest.mark.slow
@pytest.mark.parametrize(("calls", "bound"), [(4, 0.25), (6, 0.15), (8, 0.10), (10, 0.10)])
def test_the_error_is_a_fraction_of_the_best_peers(tmp_path, capsys, calls, bound):
    path = tmp_path / "m.json"
    learn.main(["--field", "mixture:dim=2,seed=11", "--calls", str(calls), "--out", str(path)])
    assert float(capsys.readouterr().out.split("ratio ")[1].split()[0]) < bound
