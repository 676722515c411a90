"""Four steps of `auto` lean on what they see, sample by sample, without harm to what is exact."""

import math
from itertools import product
from random import Random

import pytest
import torch

import samplers
from samplers import PROBLEMS, pilot, sample
from samplers.benchmark.field_families import FAMILIES
from samplers.core import find
from samplers.solvers.leaning import COEFFICIENTS, compare, leans, looks
from samplers.solvers.linear_multistep import linearize


def error(field, noise, solver, **options):
    off = sample(field.velocity, noise, 4, solver, **options) - field.solution(noise)
    return math.exp(float(off.square().mean(1).log().mean() / 2))


def test_leaning_lowers_the_error_on_fields_of_most_families():
    gains = []
    for name, seed in product(("anisotropic", "stiff_ends", "tanh_networks", "heavy_tails"), "ab"):
        field = FAMILIES[name](Random(f"leaning/{name}/{seed}"))
        noise = field.noise(8)
        plain = error(field, noise, "auto", lean=False)
        gains.append(math.log(error(field, noise, "auto") / plain))
    assert sum(gains) / len(gains) < math.log(0.95)


def test_a_sample_does_not_depend_on_its_batch():
    field = PROBLEMS["mixture"](dim=4)
    noise = field.noise(6)
    whole = sample(field.velocity, noise, 4, "auto")
    alone = torch.cat([sample(field.velocity, one[None], 4, "auto") for one in noise])
    torch.testing.assert_close(whole, alone, rtol=0, atol=1e-13)


def test_only_four_steps_forwards_over_nearly_the_whole_path_lean():
    ts = samplers.uniform(4)
    assert leans(ts) and not leans(ts.flip(0)) and not leans(ts / 2)
    assert not leans(samplers.uniform(5))


@pytest.mark.parametrize("known", COEFFICIENTS)
def test_every_look_has_a_row_and_every_older_velocity_a_column(known):
    values = list(torch.randn(known, 3, 5))
    assert looks(torch.randn(3, 5), values, [0.0, 0.3, 0.6, 0.9, 1.0]).shape[1] == len(
        COEFFICIENTS[known]
    )
    assert {len(row) for row in COEFFICIENTS[known]} == {known - 1}


def test_a_velocity_of_zero_has_finite_looks_and_gradients():
    x = torch.zeros(2, 3, requires_grad=True)
    cosine, ratio = compare(x, x)
    (slope,) = torch.autograd.grad((cosine + ratio).sum(), x)
    assert bool(slope.isfinite().all()) and not ratio.any()
    rests = lambda x, t: x * (t > 0.3)  # noqa: E731
    assert bool(sample(rests, torch.randn(2, 3), 4, "auto").isfinite().all())


@pytest.mark.parametrize("shape", [(3,), (3, 2, 4, 4)])
def test_states_of_any_shape_lean(shape):
    x = torch.randn(shape)
    assert sample(lambda x, t: x.tanh() * t, x, 4, "auto").shape == shape


def test_the_linear_part_is_what_is_read_off():
    auto, ts = find("auto"), samplers.tilted(4)
    linear = auto.linear
    assert linear is not auto and linear.linear is linear
    assert find("heun").linear is find("heun")
    _, weights = linearize(auto, ts)
    torch.testing.assert_close(weights[:, 1:].sum(1)[1:], ts[1:])


def test_a_compiled_run_and_a_mapped_one_lean_alike():
    v = PROBLEMS["mixture"](dim=4).velocity
    noise = PROBLEMS["mixture"](dim=4).noise(3)
    plain = sample(v, noise, 4, "auto")
    run = torch.compile(lambda x: sample(v, x, 4, "auto"), fullgraph=True, backend="eager")
    torch.testing.assert_close(run(noise), plain)
    mapped = torch.vmap(lambda x: sample(v, x[None], 4, "auto")[0])(noise)
    torch.testing.assert_close(mapped, plain)


def test_a_pilot_of_four_calls_runs_what_it_tried():
    problem = PROBLEMS["mixture"](dim=4, modes=5, seed=4)
    looked = problem.noise(8, 1)
    made = pilot(problem.velocity, looked, 4, looks=14)
    end = sample(problem.velocity, looked, samplers.tilted(400), "abm")
    off = sample(problem.velocity, looked, made, "auto") - end
    assert math.exp(float(off.square().mean(1).log().mean() / 2)) < 1.3 * made.error


def test_a_pilot_of_a_smooth_network_is_no_worse_than_a_rule_of_order_four():
    problem = FAMILIES["tanh_networks"](Random("smooth"))
    made = pilot(problem.velocity, problem.noise(8, 1), 8)
    noise = problem.noise(16, 2)
    end = sample(problem.velocity, noise, samplers.uniform(64), "rk4")
    off = [
        float((sample(problem.velocity, noise, *how) - end).square().mean().sqrt())
        for how in ((made, "auto"), (8, "kutta4"))
    ]
    assert off[0] < 1.1 * off[1]


def test_states_whose_squares_overflow_are_integrated_all_the_same():
    end = sample(lambda x, t: -x, 1e19 * torch.randn(3, 4), 4, "auto")  # noqa: ARG005
    assert bool(end.isfinite().all())
