"""Solvers side by side, FlowEdit, posteriors."""

import math

import pytest
import torch

import samplers
from samplers.benchmark.problems import GaussianMixture, gaussian, normal

FIELD = gaussian(dim=3)


def test_a_comparison_is_a_table_and_a_figure():
    noise = FIELD.noise(8)
    made = samplers.compare(FIELD.velocity, noise, ["euler", "heun"], [3, 8])
    assert made.best(8) == "heun" and math.isnan(made.errors["heun"][3])
    end = samplers.sample(FIELD.velocity, noise, 8, "euler")
    rms = (end - FIELD.solution(noise)).square().mean(1).log().mean().div(2).exp()
    assert made.errors["euler"][8] == pytest.approx(float(rms), rel=1e-3)
    assert f"{float(rms):.2e}" in repr(made) and f"<b>{made.errors['heun'][8]:.2e}</b>" in (
        made._repr_html_()
    )
    axes = made.figure().axes[0]
    assert axes.get_xlabel() == "network evaluations (NFE)" and "n = " in axes.get_ylabel()
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [str(n) for n in made.calls]


def test_the_same_prompt_edits_nothing_and_another_moves_there():
    """Two distributions, N(0, s) and N(m, s): every edit is the shift by m."""
    shift = torch.tensor([2.0, -1.0], dtype=torch.float64)
    source, target = (GaussianMixture(m[None], 0.3) for m in (0 * shift, shift))
    data, generator = 0.3 * normal(5, 2, seed=0), torch.Generator().manual_seed(0)
    same = samplers.flow_edit(source, source, data, 10, generator=generator)
    assert torch.allclose(same, data)
    moved = samplers.flow_edit(source, target, data, 40, averages=2, generator=generator)
    assert torch.allclose(moved, data + shift, atol=0.05)


A = torch.tensor([[1.0, 0.5]], dtype=torch.float64)


def exact(mean, variance, measured, noise):
    """Mean and covariance of the posterior of N(mean, variance I) given A data + noise."""
    gain = variance * A.T / (variance * (A @ A.T) + noise**2)
    return mean + (gain @ (measured - A @ mean)), variance * (torch.eye(2) - gain @ A)


def test_the_posterior_of_a_gaussian_is_exact():
    measured = torch.tensor([1.0], dtype=torch.float64)
    prior = GaussianMixture(torch.zeros(1, 2, dtype=torch.float64), 1.0)
    v = samplers.posterior(prior, A, measured, 0.3, spread=1.0)
    x = samplers.sample(v, normal(4000, 2, seed=1), torch.linspace(0, 1, 101), "heun")
    mean, covariance = exact(torch.zeros(2).double(), 1.0, measured, 0.3)
    assert torch.allclose(x.mean(0), mean, atol=0.05)
    assert torch.allclose(torch.cov(x.T), covariance, atol=0.05)


def test_the_posterior_of_a_mixture_is_biased_within_bounds():
    """Two modes at (+-1, 0), a measurement nearer to one of them: the share of that mode."""
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    noise, measured = 1.2, torch.tensor([1.6], dtype=torch.float64)
    total = 0.3**2 * float((A @ A.T)[0, 0]) + noise**2
    logits = -((measured - means @ A[0]) ** 2) / (2 * total)
    weight = float(logits.softmax(0)[0])
    v = samplers.posterior(GaussianMixture(means, 0.3), A, measured, noise, spread=1.0)
    x = samplers.sample(v, normal(4000, 2, seed=1), torch.linspace(0, 1, 101), "heun")
    found = float((x[:, 0] > 0).double().mean())
    assert found != pytest.approx(weight, abs=1e-3) and found == pytest.approx(weight, abs=0.1)
