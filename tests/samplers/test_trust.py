"""`auto` follows the longest rules on smooth fields that are no flow to data, and only there."""

import math

import pytest
import torch

import samplers
from samplers import PROBLEMS, sample
from samplers.benchmark.problems import normal
from samplers.solvers.caution import looks, turn
from samplers.solvers.trust import STEPS, through, trusts, turned


class Network:
    """v = A softplus(B x + t + b): a nearly straight field without a data distribution."""

    def __init__(self, dim=16, width=64, seed=5):
        self.inward = normal(dim, width, seed=seed) / dim**0.5
        self.outward = 0.5 * normal(width, dim, seed=seed + 1) / width**0.5
        self.shift = normal(width, seed=seed + 2)

    def __call__(self, x, t):
        hidden = torch.nn.functional.softplus(x.double() @ self.inward + t + self.shift)
        return (hidden @ self.outward).to(x)


def error(v, noise, ts, solver):
    """Geometric mean over samples of the RMS at the end, against many steps of rk4."""
    off = sample(v, noise, ts, solver) - sample(v, noise, samplers.uniform(128), "rk4")
    return math.exp(float(off.square().mean(1).log().mean()) / 2)


@pytest.mark.parametrize("calls", [4, 8, 16, 32])
def test_a_smooth_network_is_followed_about_as_well_as_by_runge_kutta(calls):
    v, noise = Network(), normal(8, 16, seed=0)
    rival = error(v, noise, samplers.uniform(calls // 4), "kutta4")
    assert error(v, noise, calls, "auto") < 3 * rival < error(v, noise, calls, "abm2")


@pytest.mark.parametrize("name", ["mixture", "digits"])
def test_a_flow_to_data_is_hardly_trusted(name):
    field = PROBLEMS[name](**({"dim": 64} if name == "mixture" else {}))
    noise = field.noise(16)
    first = field.velocity(noise, torch.tensor(0.0, dtype=torch.float64))
    assert float(turned(first, noise).mean()) < 0.1
    assert float(turned(Network(64)(noise, torch.tensor(0.0)), noise).mean()) > 0.8


def test_a_velocity_that_turns_is_not_trusted():
    ts = tuple(samplers.tilted(16).tolist())
    straight, turns = torch.ones(2, 3), torch.tensor([[3.0, -1.0, 2.0], [0.0, 5.0, -4.0]])
    scale = trusts(ts)[6].scale
    assert (1 / (1 + scale * turn([straight] * 5, looks(ts)[6]))).eq(1).all()
    assert (1 / (1 + scale * turn([turns, straight, -turns], looks(ts)[6]))).lt(0.1).all()
    assert turn([straight] * 2, trusts(ts)[1].small).eq(0).all()


@pytest.mark.parametrize("n", [4, 5, 8, 16, 40])
def test_the_longest_rules_move_straight_paths_exactly(n):
    ts = tuple(samplers.tilted(n).tolist())
    for i, step in enumerate(trusts(ts)):
        assert sum(step.predict) == pytest.approx(ts[i + 1] - ts[i])
        assert sum(step.correct) == pytest.approx(ts[i] - ts[i - 1] if i else 0)
        assert len(step.predict) == min(i + 1, 4) and len(step.correct) == (i and min(i + 1, 5))
        assert sum(step.small) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("n", [4, 6])
def test_the_second_prediction_makes_up_for_the_first(n):
    """On v = J x + a t the errors of both cancel in the sum over the first states."""
    ts = tuple(samplers.tilted(n).tolist())
    steps, end = trusts(ts), min(n, 4)
    first = ts[1] ** 2 / 2
    second = ts[2] ** 2 / 2 - ts[1] * (steps[1].predict[0] + steps[1].correct[0])
    weights = through(ts, 0, end, min(end, n - 1))
    assert weights[-2] * first + weights[-3] * second == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("calls", [4, 6, 8])
def test_data_far_off_the_centre_are_reached_about_as_well(calls):
    field, shift = PROBLEMS["mixture"](dim=32, modes=6, seed=3, spread=0.06), 4.0
    noise = field.noise(8)
    off = [
        error(v, noise, calls, "auto")
        for v in (field.velocity, lambda x, t: field.velocity(x - t * shift, t) + shift)
    ]
    assert off[1] < 3 * off[0]


def test_only_whole_runs_from_noise_to_data_trust():
    ts = samplers.tilted(16)
    assert trusts(tuple(ts.tolist()))
    assert not trusts(tuple(ts.flip(0).tolist())) and not trusts(tuple((ts / 2).tolist()))
    assert not trusts(tuple(samplers.tilted(STEPS.stop).tolist()))


@pytest.mark.parametrize("calls", [4, 6, 16])
def test_a_sample_does_not_depend_on_its_batch(calls):
    v, noise = Network(), normal(3, 16, seed=1)
    whole = sample(v, noise, calls, "auto")
    alone = torch.cat([sample(v, one[None], calls, "auto") for one in noise])
    torch.testing.assert_close(whole, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("calls", [4, 6, 16])
def test_a_compiled_run_and_a_mapped_one_trust_alike(calls):
    v, noise = Network(), normal(3, 16, seed=1)
    plain = sample(v, noise, calls, "auto")
    assert not torch.allclose(plain, sample(v, noise, calls, "auto", lean=False), atol=1e-7)
    run = torch.compile(lambda x: sample(v, x, calls, "auto"), fullgraph=True, backend="eager")
    torch.testing.assert_close(run(noise), plain)
    mapped = torch.vmap(lambda x: sample(v, x[None], calls, "auto")[0])(noise)
    torch.testing.assert_close(mapped, plain)


def test_noise_and_velocity_at_rest_have_finite_gradients():
    known = [torch.zeros(2, 3, requires_grad=True) for _ in range(2)]
    facing = turned(known[0], known[1])
    slopes = torch.autograd.grad(facing.sum(), known)
    assert all(bool(slope.isfinite().all()) for slope in slopes)


def test_a_run_is_differentiable():
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: sample(lambda y, t: t + y.cos(), z, 8, "auto"), x)


class Shifted(Network):
    time_shift = 4.0


def test_a_field_with_a_time_shift_is_not_trusted_and_has_its_own_grid():
    v, noise = Shifted(), normal(3, 16, seed=1)
    ts = samplers.grids.earlier(samplers.tilted(8, shifted=True), 4.0)
    torch.testing.assert_close(sample(v, noise, 8, "auto"), sample(v, noise, ts, "auto"))
    assert not torch.equal(sample(v, noise, ts, "auto"), sample(Network(), noise, ts, "auto"))
    run = torch.compile(lambda x: sample(v, x, 4, "auto"), fullgraph=True, backend="eager")
    torch.testing.assert_close(run(noise), sample(v, noise, 4, "auto"))
    mapped = torch.vmap(lambda x: sample(v, x[None], 8, "auto")[0])(noise)
    torch.testing.assert_close(mapped, sample(v, noise, 8, "auto"))


def test_a_pilot_of_a_field_with_a_time_shift_finds_what_a_run_repeats():
    v, noise = Shifted(), normal(8, 16, seed=2)
    found = samplers.pilot(v, noise, 8, looks=14)
    assert found.error <= found.before
    off = sample(v, noise, found, "auto") - sample(v, noise, samplers.uniform(128), "rk4")
    assert math.exp(float(off.square().mean(1).log().mean()) / 2) < 1.5 * found.before


def test_before_a_jump_the_first_step_is_whole():
    v = Network()
    v.jumps = (0.3,)
    times = [float(t) for t, _ in samplers.trajectory(v, normal(1, 16, seed=0), 8, "auto")]
    seen = [float(t) for t, _ in samplers.trajectory(Network(), normal(1, 16, seed=0), 8, "auto")]
    assert times[1] > 1.2 * seen[1]
