"""Fields that say where they jump: grids place a time there, and no solver looks across."""

import pytest
import torch

import samplers
from samplers import (
    SOLVERS,
    cfg,
    cfg_rescale,
    cfg_zero_star,
    count,
    guidance_interval,
    guide,
    sample,
)
from samplers.core import times
from samplers.grids import at_jumps, pieces, place_at
from samplers.guidance import cfg_plus_plus

HIGH_ORDER = [s for s in SOLVERS.values() if (s.order or 0) > 1 and not s.stochastic]


class Steps:
    """v = -x before t = 0.3, 2 cos t - 3 x from there on."""

    jumps = (0.3,)

    def __call__(self, x, t):
        return torch.where(t < 0.3, -x, 2 * t.cos() - 3 * x)


def exact(x):
    x, a, b = x * torch.tensor(-0.3).double().exp(), torch.tensor(0.3).double(), torch.tensor(1.0)
    fall = torch.exp(-3 * (b - a))

    def forced(t):  # solves x' = 2 cos t - 3 x
        return (3 * t.cos() + t.sin()) / 5

    return forced(b.double()) + (x - forced(a)) * fall


X = torch.tensor([[0.5], [2.0]], dtype=torch.float64)


@pytest.mark.parametrize("solver", HIGH_ORDER, ids=lambda s: s.name)
def test_a_jump_costs_no_order(solver):
    if solver.adaptive:
        return
    ts = at_jumps(samplers.uniform(60), Steps.jumps)
    assert float((sample(Steps(), X, ts, solver) - exact(X)).abs().max()) < 2e-3


@pytest.mark.parametrize("name", ["heun", "auto", "abm4", "rk4", "fireflow", "dpmpp_2m"])
@pytest.mark.parametrize("calls", [12, 24])
def test_an_integer_places_a_time_at_the_jump_and_spends_no_more(name, calls):
    calls *= 2 if name == "rk4" else 1  # four calls a step
    ts = times(calls, SOLVERS[name], Steps.jumps)
    assert 0.3 in ts.tolist()
    v = count(Steps())
    sample(v, X, calls, name)
    assert v.calls <= calls


def test_each_side_of_a_jump_sees_its_own_limit():
    seen = []

    class Told(Steps):
        def __call__(self, x, t):
            seen.append(float(t))
            return super().__call__(x, t)

    sample(Told(), X, [0, 0.3, 1], "heun")
    assert seen[1] < 0.3 < seen[2]


def test_a_grid_without_the_jump_is_left_alone():
    seen = []

    class Told(Steps):
        def __call__(self, x, t):
            seen.append(float(t))
            return super().__call__(x, t)

    sample(Told(), X, [0, 0.25, 1], "euler")
    assert seen == [0, 0.25]


def test_rules_know_their_jumps():
    assert guidance_interval(4.0, 0.1, 0.8).jumps == (0.1, 0.8)
    assert guidance_interval(cfg_zero_star(2.0, 0.2), 0.1, 0.8).jumps == (0.1, 0.2, 0.8)
    assert cfg_rescale(guidance_interval(3.0)).jumps == (0.1, 0.9)
    assert cfg_zero_star(3.0).jumps == (0.04,) and cfg_zero_star(1.0).jumps == ()
    assert cfg(3.0).jumps == () and len(cfg_plus_plus(0.5, 4).jumps) == 3


def test_a_guided_field_has_the_jumps_of_its_rule_and_of_what_it_guides():
    field = guide((Steps(), lambda x, t: -x), guidance_interval(2.0, 0.1, 0.8))  # noqa: ARG005
    assert field.jumps == field.checked().jumps == count(field).jumps == (0.1, 0.3, 0.8)


def test_a_grid_of_few_steps_is_left_alone():
    """Four steps to a piece: a rule that looks back would lose more by beginning anew."""
    for n, jumps in ((1, (0.2,)), (9, (0.2,)), (14, (0.2, 0.4))):
        assert torch.equal(at_jumps(samplers.uniform(n), jumps), samplers.uniform(n))
    assert 0.2 in at_jumps(samplers.uniform(10), (0.2,)).tolist()


def test_fewer_steps_of_several_evaluations_are_cut():
    assert 0.3 not in times(9, SOLVERS["auto"], (0.3,)).tolist()
    for name, calls in (("heun", 10), ("rk4", 12)):
        assert 0.3 in times(calls, SOLVERS[name], (0.3,)).tolist()


def test_steps_beside_a_jump_are_shorter_and_only_those_of_one_evaluation():
    steps = at_jumps(samplers.uniform(20), (0.5,)).diff()
    assert float(steps[9] / steps[8]) == pytest.approx(0.4)
    assert float(steps[10] / steps[11]) == pytest.approx(0.6)
    assert torch.equal(at_jumps(samplers.uniform(20), (0.5,), calls=2), samplers.uniform(20))
    rested = at_jumps(samplers.uniform(10), cfg_zero_star(3.0, 0.1).jumps)
    torch.testing.assert_close(rested, samplers.uniform(10))


def test_a_falling_grid_gets_the_same_times():
    up, down = samplers.uniform(18), samplers.uniform(18).flip(0)
    torch.testing.assert_close(place_at(down, (0.2, 0.45)).flip(0), place_at(up, (0.2, 0.45)))
    assert [len(p) for p in pieces(at_jumps(down, (0.2, 0.45)), (0.2, 0.45))] == [11, 5, 5]


def test_a_standstill_gets_one_step_where_other_jumps_get_none():
    """CFG-Zero* stands still until t: that step is free and exact, from four calls on."""
    still, interval = cfg_zero_star(3.0, 0.07), guidance_interval(3.0, 0.07, 0.9)
    for n in (4, 5, 8):
        ts = at_jumps(samplers.tilted(n), still.jumps)
        assert ts[1] == 0.07 and [len(p) - 1 for p in pieces(ts, still.jumps)] == [1, n - 1]
        assert 0.07 not in at_jumps(samplers.tilted(n), interval.jumps)
    assert torch.equal(at_jumps(samplers.tilted(3), still.jumps), samplers.tilted(3))


def test_eulers_grid_is_not_eased_beside_a_jump():
    assert torch.equal(
        at_jumps(samplers.uniform(20), (0.5,), order=1), place_at(samplers.uniform(20), (0.5,))
    )
    assert not torch.equal(
        at_jumps(samplers.uniform(20), (0.5,), order=3),
        at_jumps(samplers.uniform(20), (0.5,), order=1),
    )
