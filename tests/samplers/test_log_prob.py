"""The density of a stochastic step, as policy gradients need it."""

import math

import pytest
import torch

import samplers
from samplers import rollout, sample, step_log_prob
from samplers.benchmark.problems import normal
from samplers.solvers.transitions import TRANSITIONS

X = normal(3, 2, 2, seed=0)


def v(x, t):
    return -x * (1 + t)


def test_the_published_formulas_are_met():
    """Flow-GRPO's and CPS's own conventions: sigma = 1 - t, the network predicts -v."""
    a, sigma, after = 0.7, 0.6, 0.5
    out, dt = -v(X, torch.tensor(0.4)), after - sigma
    std = math.sqrt(sigma / (1 - sigma)) * a
    mean = X * (1 + std**2 / (2 * sigma) * dt)
    mean = mean + out * (1 + std**2 * (1 - sigma) / (2 * sigma)) * dt
    grpo = torch.distributions.Normal(mean, std * math.sqrt(-dt)).log_prob(X).sum((1, 2))
    t, s = torch.tensor(1 - sigma).double(), torch.tensor(1 - after).double()
    ours = step_log_prob(X, X, -out, t, s, "flow_grpo", strength=a)
    assert torch.allclose(ours, grpo)
    data, noise = X - sigma * out, X + (1 - sigma) * out
    mean = (1 - after) * data + after * math.cos(0.25 * math.pi) * noise
    cps = torch.distributions.Normal(mean, after * math.sin(0.25 * math.pi)).log_prob(X)
    ours = step_log_prob(X, X, -out, t, s, "cps", strength=0.5)
    assert torch.allclose(ours, cps.sum((1, 2)))


@pytest.mark.parametrize("name", TRANSITIONS)
def test_a_rollout_is_the_sample_and_says_how_likely_it_was(name):
    def generator():
        return torch.Generator().manual_seed(3)

    field = samplers.count(v)
    run = rollout(field, X, 5, name, generator=generator())
    assert torch.equal(run.end, sample(v, X, 5, name, generator=generator())) and field.calls == 5
    assert run.states.shape == (6, 3, 2, 2) and run.log_probs.shape == (5, 3)
    for i, (t, s, x, y) in enumerate(run.steps()):
        again = step_log_prob(x, y, v(x, t), t, s, name)
        assert torch.equal(again, run.log_probs[i])


@pytest.mark.parametrize("name", TRANSITIONS)
def test_log_probabilities_have_the_entropy_of_the_noise(name):
    x = normal(20000, 1, seed=1)
    run = rollout(v, x, [0.2, 0.6], name, generator=torch.Generator().manual_seed(0))
    deviation = (run.states[1] - _mean(name, x)).std()
    entropy = 0.5 + 0.5 * math.log(2 * math.pi) + float(deviation.log())
    assert -float(run.log_probs.mean()) == pytest.approx(entropy, abs=0.02)


def _mean(name, x):
    t, s = torch.tensor(0.2).double(), torch.tensor(0.6).double()
    return TRANSITIONS[name](x, v(x, t), t, s)[0]


def test_the_gradient_reaches_the_velocity_and_times_may_differ_by_sample():
    k = v(X, 0.5).requires_grad_()
    t, s = torch.tensor([0.1, 0.3, 0.5]), torch.tensor([0.2, 0.6, 1.0])
    together = step_log_prob(X, X + 0.1, k, t, s)
    alone = [
        step_log_prob(X[i : i + 1], X[i : i + 1] + 0.1, k[i : i + 1], t[i], s[i]) for i in range(3)
    ]
    assert torch.allclose(together, torch.cat(alone), rtol=1e-5)
    assert torch.autograd.grad(together.sum(), k)[0].abs().min() > 0


def test_a_certain_step_has_probability_one():
    run = rollout(v, X, 4, "cps")
    assert torch.equal(run.log_probs[-1], torch.zeros(3, dtype=torch.float64))


def test_a_step_without_a_density_is_refused():
    with pytest.raises(ValueError, match="choose one of euler_maruyama, flow_grpo"):
        step_log_prob(X, X, X, 0.1, 0.2, "heun")
