"""Fields of the straight path, against what they are derived from."""

import pytest
import torch

from samplers import PROBLEMS, sample
from samplers.benchmark.problems import GaussianMixture, normal, reference


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_solution_is_where_small_steps_end(name):
    problem = PROBLEMS[name]()
    noise = problem.noise(4, seed=1)
    end = sample(problem.velocity, noise, 400, "rk4")
    torch.testing.assert_close(problem.solution(noise), end, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["bend", "rotation", "straight", "gaussian"])
def test_closed_forms_agree_with_tight_integration(name):
    problem = PROBLEMS[name]()
    noise = problem.noise(4, seed=2)
    torch.testing.assert_close(problem.solution(noise), reference(problem.velocity, noise))


@pytest.mark.parametrize("name", PROBLEMS)
def test_noise_depends_on_the_seed_alone(name):
    problem = PROBLEMS[name]()
    assert problem.noise(3).shape == (3, problem.dim)
    assert torch.equal(problem.noise(3, 5), PROBLEMS[name]().noise(3, 5))
    assert not torch.equal(problem.noise(3, 5), problem.noise(3, 6))


def test_the_velocity_of_a_mixture_is_the_mean_of_data_minus_noise():
    """Importance weights over 2e5 draws of data; the noise that leads to x is then known."""
    means, spread, t = normal(3, 2, seed=0), 0.5, torch.tensor(0.4, dtype=torch.float64)
    x = torch.tensor([0.3, -0.2], dtype=torch.float64)
    mode = torch.arange(200_000) % 3
    data = means[mode] + spread * normal(200_000, 2, seed=1)
    noise = (x - t * data) / (1 - t)
    weight = (-noise.square().sum(-1, keepdim=True) / 2).softmax(0)
    expected = (weight * (data - noise)).sum(0)
    torch.testing.assert_close(
        GaussianMixture(means, spread)(x[None], t)[0], expected, rtol=0, atol=0.01
    )


def test_the_flow_of_a_gaussian_carries_its_covariance():
    problem = PROBLEMS["gaussian"](dim=3, seed=4, low=0.2, high=1.5)
    end = problem.solution(problem.noise(100_000))
    variances = torch.linalg.eigvalsh(end.T.cov())
    expected = torch.logspace(-0.69897, 0.176091, 3, dtype=torch.float64) ** 2
    torch.testing.assert_close(variances, expected, rtol=0.02, atol=0)


def test_the_flow_of_a_mixture_ends_in_its_modes():
    problem = PROBLEMS["mixture"](dim=2, modes=4, seed=1, spread=0.05)
    end = problem.solution(problem.noise(64))
    nearest = torch.cdist(end, problem.velocity.means).min(-1).values
    assert (nearest < 0.05 * 4).float().mean() > 0.9


def test_guidance_of_weight_one_is_the_condition_alone():
    guided = PROBLEMS["guided"](dim=4, modes=8, seed=2, weight=1.0)
    alone = GaussianMixture(normal(8, 4, seed=2)[:2], 0.2)
    x, t = guided.noise(5), torch.tensor(0.6, dtype=torch.float64)
    torch.testing.assert_close(guided.velocity(x, t), alone(x, t))


def test_a_reference_is_integrated_once():
    problem, calls = PROBLEMS["mixture"](), []
    counted = problem.velocity
    object.__setattr__(problem, "velocity", lambda x, t: calls.append(t) or counted(x, t))
    first = problem.solution(problem.noise(2))
    spent = len(calls)
    assert problem.solution(problem.noise(2)) is first and len(calls) == spent > 0
    assert problem.solution(problem.noise(2, seed=9)) is not first
