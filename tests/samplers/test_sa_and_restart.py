"""SA-Solver and Restart: limits, marginals, cost."""

import math

import pytest
import torch

from samplers.core import SOLVERS, count, sample
from samplers.solvers.restart import twice
from tests.samplers.test_stochastic import MEAN, STD, gaussian, uneven, weak_errors

NAMES = ["sa_solver", "restart_heun"]


def point(x, t):
    """The velocity for data that is always MEAN."""
    return (MEAN - x) / (1 - t).to(x.dtype)


def ends(name, steps, samples=20000, **options):
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(samples, generator=generator, dtype=torch.float64)
    return sample(gaussian, noise, uneven(steps), name, generator=generator, **options)


@pytest.mark.parametrize("name", NAMES)
def test_the_end_has_the_distribution_of_the_data(name):
    end = ends(name, 120)
    assert float(end.mean()) == pytest.approx(MEAN, abs=4 * STD / math.sqrt(len(end)))
    assert float(end.std()) == pytest.approx(STD, rel=0.03)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 2.0])
def test_sa_solver_is_exact_for_a_single_point(strength):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20000, generator=generator, dtype=torch.float64)
    middle = sample(point, x, [0.0, 0.2, 0.6], "sa_solver", strength=strength, generator=generator)
    assert float(middle.mean()) == pytest.approx(0.6 * MEAN, abs=0.02)
    assert float(middle.std()) == pytest.approx(0.4, rel=0.02)
    end = sample(point, x, [0.0, 0.2, 0.6, 1.0], "sa_solver", strength=strength)
    torch.testing.assert_close(end, torch.full_like(end, MEAN))


def test_sa_solver_without_noise_is_a_solver_of_the_ode_of_second_order():
    noise = torch.linspace(-2, 2, 9, dtype=torch.float64)
    exact = MEAN + STD * noise
    coarse, fine = (
        float((sample(gaussian, noise, uneven(n), "sa_solver", strength=0.0) - exact).abs().max())
        for n in (40, 80)
    )
    assert 1.7 < math.log2(coarse / fine) < 3.5


def test_restart_keeps_the_variance_at_second_order(monkeypatch):
    coarse, fine = (weak_errors(monkeypatch, "restart_heun", n)[1] for n in (96, 192))
    assert math.log2(coarse / fine) == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 9])
def test_restart_costs_what_is_declared(steps):
    v = count(gaussian)
    sample(v, torch.zeros(2), torch.linspace(0, 1, steps + 1), "restart_heun")
    first, last = twice(steps)
    assert v.calls == SOLVERS["restart_heun"].cost(steps) == 2 * (steps + last - first)


def test_a_second_pass_forgets_errors_of_the_first():
    """A field that is wrong before that part: noise takes most of the error out again."""

    def wrong(x, t):
        return gaussian(x, t) + (2.0 if 0.1 < t < 0.3 else 0.0)

    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4000, generator=generator, dtype=torch.float64)
    ts = torch.linspace(0, 1, 31, dtype=torch.float64)
    once = sample(wrong, noise, ts, "heun").mean() - MEAN
    again = sample(wrong, noise, ts, "restart_heun", generator=generator).mean() - MEAN
    assert abs(again) < 0.5 * abs(once)


@pytest.mark.parametrize("name", NAMES)
def test_neither_runs_backwards(name):
    with pytest.raises(ValueError, match="from noise to data"):
        sample(gaussian, torch.zeros(2), [1.0, 0.5, 0.0], name)
