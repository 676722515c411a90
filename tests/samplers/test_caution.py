"""`auto` doubts predictions of many steps where velocities turn fast, and nowhere else."""

import math
from random import Random

import pytest
import torch

import samplers
from samplers import PROBLEMS, sample
from samplers.benchmark.field_families import FAMILIES
from samplers.solvers.caution import FEWEST, LOOKS, MOST, crossed, doubts, looks, turn


def gain(field, calls, samples=8):
    """The error of the run that doubts, over that of the one that does not."""
    noise = field.noise(samples)
    end = sample(field.velocity, noise, samplers.uniform(128), "rk4")
    off = [sample(field.velocity, noise, calls, "auto", lean=lean) - end for lean in (True, False)]
    logs = [float(x.square().mean(1).log().mean()) / 2 for x in off]
    return math.exp(logs[0] - logs[1])


@pytest.mark.parametrize("calls", [16, 32])
def test_strong_guidance_is_followed_much_closer(calls):
    assert gain(FAMILIES["guided_digits"](Random("caution/1")), calls) < 0.7


@pytest.mark.parametrize("name", ["tanh_networks", "stiff_ends", "heavy_tails"])
def test_where_velocities_turn_slowly_nothing_is_lost(name):
    assert gain(FAMILIES[name](Random(f"caution/{name}")), 16) < 1.05


@pytest.mark.parametrize("calls", [FEWEST, 16, MOST])
def test_a_sample_does_not_depend_on_its_batch(calls):
    field = PROBLEMS["guided"](dim=4, weight=6.0)
    noise = field.noise(3)
    whole = sample(field.velocity, noise, calls, "auto")
    alone = torch.cat([sample(field.velocity, one[None], calls, "auto") for one in noise])
    torch.testing.assert_close(whole, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("calls", [6, 8])
def test_an_interval_that_few_steps_cannot_cut_costs_little(calls):
    """Six or eight steps forget their history at both jumps, and doubt what comes behind them."""
    far, near = (PROBLEMS["mixture"](dim=8, modes=n, seed=4).velocity for n in (16, 4))
    field = samplers.guide((near, far), samplers.guidance_interval(5.8, 0.06, 0.84))
    noise = PROBLEMS["mixture"](dim=8).noise(16)
    end = sample(field, noise, samplers.grids.at_jumps(samplers.uniform(200), field.jumps), "rk4")
    off = [sample(field, noise, calls, "auto") - end]
    off += [sample(lambda x, t: field(x, t), noise, calls, "auto", lean=False) - end]
    logs = [float(x.square().mean(1).log().mean()) / 2 for x in off]
    assert logs[0] - logs[1] < math.log(0.8)


def test_a_compiled_run_and_a_mapped_one_doubt_alike():
    field = PROBLEMS["guided"](dim=4, weight=6.0)
    v, noise = field.velocity, field.noise(3)
    plain = sample(v, noise, 16, "auto")
    assert not torch.allclose(plain, sample(v, noise, 16, "auto", lean=False), atol=1e-6)
    run = torch.compile(lambda x: sample(v, x, 16, "auto"), fullgraph=True, backend="eager")
    torch.testing.assert_close(run(noise), plain)
    mapped = torch.vmap(lambda x: sample(v, x[None], 16, "auto")[0])(noise)
    torch.testing.assert_close(mapped, plain)


def test_only_runs_of_many_steps_look_and_then_often_enough():
    ends = [tuple(samplers.uniform(n).tolist()) for n in (FEWEST - 1, FEWEST, 40, MOST, MOST + 1)]
    assert [doubts(ts) for ts in ends] == [False, True, True, True, False]
    assert looks(ends[0]) == () and sum(map(bool, looks(ends[2]))) >= LOOKS - 1


def test_a_velocity_at_rest_is_not_doubted_and_has_finite_gradients():
    known = [torch.zeros(2, 3, requires_grad=True) for _ in range(3)]
    power = turn(known, (0.5, -1.0, 0.5))
    assert not power.any()
    slopes = torch.autograd.grad(power.sum(), known)
    assert all(bool(slope.isfinite().all()) for slope in slopes)


def test_states_whose_squares_overflow_are_integrated_all_the_same():
    end = sample(lambda x, t: -x, 1e19 * torch.randn(3, 4), 16, "auto")  # noqa: ARG005
    assert bool(end.isfinite().all())


def test_a_run_is_differentiable():
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: sample(lambda y, t: t - y.sin(), z, 12, "auto"), x)


@pytest.mark.parametrize("shape", [(3,), (3, 2, 4, 4)])
def test_states_of_any_shape_are_doubted(shape):
    x = torch.randn(shape)
    assert sample(lambda x, t: x.tanh() * t, x, 16, "auto").shape == shape


def test_what_was_known_before_a_jump_within_a_step_is_forgotten():
    """Two velocities that agree from the jump on give equal predictions behind it."""

    class Jumps:
        jumps = (0.3,)

        def __init__(self, before):
            self.before, self.seen = before, []

        def __call__(self, x, t):
            self.seen.append(x)
            return torch.full_like(x, self.before(float(t)) if t < 0.3 else 1.0)

    ts, x = samplers.uniform(8), torch.zeros(1, 2, dtype=torch.float64)
    for before in (math.exp, math.sqrt):
        v = Jumps(before)
        path = list(samplers.trajectory(v, x, ts.tolist(), "auto"))
        torch.testing.assert_close(v.seen[4] - path[3][1], torch.full_like(x, 1 / 8))
    assert crossed(tuple(ts.tolist()), (0.3,)) == {3}
    assert crossed(tuple(ts.flip(0).tolist()), (0.3,)) == {6}
    assert crossed(tuple(samplers.uniform(4).tolist()), (0.3,)) == frozenset()


@pytest.mark.parametrize("calls", [4, 6])
def test_a_first_correction_larger_than_the_step_is_undone(calls):
    """After velocities 1 and -0.01 the state is near Euler's, after 1 and 0.9 it is corrected."""
    x = torch.zeros(1, 2, dtype=torch.float64)
    step = float(samplers.tilted(calls)[1])
    for later, kept in ((-0.01, 1.0), (0.9, 0.0)):

        def v(x, t, later=later):
            return torch.full_like(x, 1.0 if t == 0 else later)

        first, plain = (
            float(list(samplers.trajectory(v, x, calls, "auto", lean=lean))[1][1][0, 0])
            for lean in (True, False)
        )
        assert plain + kept * (step - plain) == pytest.approx(first, rel=0.01)


def test_a_compiled_run_doubts_its_first_correction_alike():
    field = PROBLEMS["guided"](dim=4, weight=8.0)
    v, noise = field.velocity, field.noise(3)
    for calls in (4, 6):
        run = torch.compile(
            lambda x, n=calls: sample(v, x, n, "auto"), fullgraph=True, backend="eager"
        )
        torch.testing.assert_close(run(noise), sample(v, noise, calls, "auto"))
