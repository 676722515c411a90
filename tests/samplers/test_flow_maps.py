"""Flow maps: a second kind of field, exact in one call where the map is exact."""

import pytest
import torch

import samplers
from samplers import flow_map, integrated, sample
from samplers.benchmark.problems import GaussianMixture, gaussian, mixture, normal

MEAN, STD = 1.5, 0.4


def spread(t):
    return ((1 - t) ** 2 + t**2 * STD**2).sqrt()


def exact(x, t, s):
    """The mean velocity from t to s for data from N(MEAN, STD^2), and its limit at s = t."""
    t, s = torch.as_tensor(t), torch.as_tensor(s)
    if t == s:
        slope = (t * STD**2 - (1 - t)) / spread(t) ** 2
        return MEAN + slope * (x - t * MEAN)
    end = s * MEAN + spread(s) / spread(t) * (x - t * MEAN)
    return (end - x) / (s - t)


NOISE = normal(2000, 2, seed=0)
END = MEAN + STD * NOISE


@pytest.mark.parametrize("calls", [1, 2, 5])
def test_an_exact_map_jumps_to_the_end_in_any_number_of_calls(calls):
    u = samplers.count(flow_map(exact))
    assert torch.allclose(sample(u, NOISE, calls, "jump"), END, atol=1e-12)
    assert u.calls == calls


def test_a_jump_goes_back_as_well():
    assert torch.allclose(sample(flow_map(exact), END, [1, 0.3, 0], "jump"), NOISE, atol=1e-12)


def test_solvers_of_velocities_take_the_map_at_equal_times():
    assert torch.allclose(sample(flow_map(exact), NOISE, 64, "rk4"), END, atol=1e-6)


def test_a_map_may_return_states():
    states = flow_map(lambda x, t, s: x + (s - t) * exact(x, t, s), output="state")
    assert torch.allclose(sample(states, NOISE, 3, "jump"), END, atol=1e-12)
    with pytest.raises(ValueError, match="no velocity at a single time"):
        sample(states, NOISE, 4, "euler")


@pytest.mark.parametrize("name", ["consistency", "restart"])
def test_fresh_noise_leaves_the_distribution_of_an_exact_map_alone(name):
    u, generator = samplers.count(flow_map(exact)), torch.Generator().manual_seed(1)
    x = sample(u, NOISE, [0, 0.4, 0.7, 1], name, generator=generator)
    assert u.calls == samplers.SOLVERS[name].cost(3)
    assert x.mean() == pytest.approx(MEAN, abs=0.03) and x.std() == pytest.approx(STD, abs=0.02)
    assert not torch.allclose(x, END, atol=0.1)


@pytest.mark.parametrize("name", ["jump", "consistency", "restart"])
def test_a_velocity_is_refused_by_solvers_of_maps(name):
    with pytest.raises(TypeError, match=r"samplers\.flow_map"):
        sample(gaussian().velocity, NOISE, 4, name)


def test_the_map_of_a_mixture_by_integration_composes():
    field = mixture(dim=2, modes=3)
    u, noise = integrated(field.velocity, 256), field.noise(20)
    one, three = (sample(u, noise, n, "jump") for n in (1, 3))
    assert torch.allclose(one, field.solution(noise), atol=1e-4)
    assert torch.allclose(one, three, atol=1e-4)
    at = torch.tensor(0.3, dtype=torch.float64)
    assert torch.equal(u(noise, at), field.velocity(noise, at))


def test_an_integrated_map_takes_a_time_per_sample():
    u = integrated(GaussianMixture(normal(3, 2, seed=1), 0.3), 64)
    x, t, s = normal(2, 2, seed=2), torch.tensor([0.1, 0.6]), torch.tensor([0.5, 0.6])
    both = u(x, t, s)
    alone = torch.cat([u(x[i : i + 1], t[i].double(), s[i].double()) for i in range(2)])
    assert torch.allclose(both, alone, atol=1e-6)


def test_a_network_of_two_times_gets_them_per_sample():
    seen = []

    def net(x, t, s):
        seen.append((t.shape, s.shape, s.dtype))
        return x + (s - t)[:, None]

    x = sample(flow_map(samplers.batched(net)), NOISE[:3].float(), 2, "jump")
    assert x.shape == (3, 2) and set(seen) == {((3,), (3,), torch.float32)}


def test_times_of_jumps_can_be_trained():
    ts = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64, requires_grad=True)
    sample(flow_map(lambda x, t, s: x * (t + s)), NOISE[:3], ts, "jump").sum().backward()
    assert ts.grad[1:].abs().min() > 0
