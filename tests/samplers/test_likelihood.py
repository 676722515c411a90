import math

import pytest
import torch
from torch.nn import functional as F

import samplers
from samplers.benchmark.problems import normal
from samplers.core import count
from samplers.likelihood import log_likelihood

MEANS = torch.tensor([[-1.5, 0.0], [1.0, 1.0], [0.5, -1.5]], dtype=torch.float64)
LOG_WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
STD = 0.6


def mixture(x, t):
    """The velocity for data from a mixture of Gaussians with one deviation, x (B, 2)."""
    variance = (1 - t) ** 2 + t**2 * STD**2
    offset = x[:, None] - t.reshape(-1, 1, 1) * MEANS
    logits = LOG_WEIGHTS - offset.square().sum(-1) / (2 * variance.reshape(-1, 1))
    slope = (t * STD**2 - (1 - t)) / variance
    each = MEANS + slope.reshape(-1, 1, 1) * offset
    return (logits.softmax(-1)[..., None] * each).sum(1)


def mixture_log_density(x):
    squares = (x[:, None] - MEANS).square().sum(-1)
    logits = LOG_WEIGHTS - squares / (2 * STD**2) - math.log(2 * math.pi * STD**2)
    return logits.logsumexp(-1)


def gaussian(mean, std):
    def v(x, t):
        t = t.to(x)
        variance = (1 - t) ** 2 + t**2 * std**2
        return mean + (t * std**2 - (1 - t)) / variance * (x - t * mean)

    return v


def points(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 1, 3, 3), (5, 2, 1, 2, 2)])
def test_a_gaussian_of_any_shape_has_its_density(shape):
    data = points(*shape)
    mean, std = points(*shape[1:], seed=1), points(*shape[1:], seed=2).abs() + 0.3
    found = log_likelihood(gaussian(mean, std), data, 80, "rk4")
    exact = torch.distributions.Normal(mean, std).log_prob(data).reshape(5, -1).sum(1)
    torch.testing.assert_close(found.value, exact, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.noise, (data - mean) / std, atol=1e-5, rtol=0)
    assert not found.error.any()
    bits = -exact / (math.log(2) * data[0].numel())
    torch.testing.assert_close(found.bits_per_dimension, bits, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "name, ts",
    [("heun", 200), ("rk4", 80), ("dopri5", [0.0, 1.0]), ("dopri5_per_sample", [0.0, 1.0])],
)
def test_a_mixture_has_its_density_by_any_solver(name, ts):
    data = 1.5 * points(8, 2)
    found = log_likelihood(mixture, data, ts, name)
    torch.testing.assert_close(found.value, mixture_log_density(data), atol=2e-3, rtol=0)


def test_the_estimate_agrees_within_its_error_bar():
    data = 1.5 * points(64, 2)
    generator = torch.Generator().manual_seed(0)
    found = log_likelihood(mixture, data, 40, "rk4", probes=64, generator=generator)
    deviations = (found.value - mixture_log_density(data)) / found.error
    assert deviations.abs().max() < 4.5
    assert 0.7 < float(deviations.square().mean().sqrt()) < 1.3


def test_sixteen_times_the_probes_quarter_the_error_bar():
    data, generator = points(64, 2), torch.Generator().manual_seed(0)
    few, many = (
        log_likelihood(mixture, data, 8, probes=n, generator=generator).error.mean()
        for n in (8, 128)
    )
    assert float(few / many) == pytest.approx(4, rel=0.2)


def test_random_signs_are_exact_where_elements_do_not_mix():
    data, std = points(3, 4), points(4, seed=1).abs() + 0.5
    exact = log_likelihood(gaussian(0.0, std), data, 40)
    found = log_likelihood(gaussian(0.0, std), data, 40, probes=2)
    torch.testing.assert_close(found.value, exact.value)
    assert found.error.max() < 1e-12


@pytest.mark.parametrize("probes", [1, 2.5, True, "4"])
def test_probes_that_are_no_number_of_probes_are_refused(probes):
    with pytest.raises(ValueError, match="at least 2"):
        log_likelihood(gaussian(0.0, 1.0), torch.zeros(2, 2), 4, probes=probes)


@pytest.mark.parametrize("probes", [None, 4])
def test_attention_on_the_cpu_is_no_obstacle(probes):
    def v(x, t):
        return F.scaled_dot_product_attention(x, x, x) * (1 - t).to(x)

    data = points(2, 2, 3, 4, dtype=torch.float32)
    found = log_likelihood(v, data, 4, probes=probes, generator=torch.Generator().manual_seed(0))
    assert found.value.shape == (2,) and found.value.isfinite().all()
    assert found.value.dtype == torch.float32


@pytest.mark.parametrize("probes", [None, 2])
def test_a_constant_velocity_moves_the_standard_normal(probes):
    data = points(4, 3)
    found = log_likelihood(lambda x, t: torch.ones_like(x), data, 4, probes=probes)  # noqa: ARG005
    exact = torch.distributions.Normal(1.0, 1.0).log_prob(data).double().sum(1)
    torch.testing.assert_close(found.value, exact)


def test_calls_of_the_velocity_are_those_asked_for():
    v = count(mixture)
    log_likelihood(v, points(3, 2), 12, "heun")
    assert v.calls == 12


def test_gradients_are_found_though_the_caller_wants_none():
    with torch.no_grad():
        found = log_likelihood(mixture, points(3, 2), 8)
    assert found.value.isfinite().all() and not found.value.requires_grad


VARIANCE = 0.25


def narrow(x, t, variance=VARIANCE):
    """The velocity for data from N(0, variance)."""
    return (t * variance - (1 - t)) / ((1 - t) ** 2 + t * t * variance) * x


POINTS = torch.tensor([[1.0], [0.2]], dtype=torch.float64)


@pytest.mark.parametrize("name", ["rk4", "abm", "dopri8", "dopri5_per_sample"])
def test_the_gradient_is_the_score(name):
    x = POINTS.clone().requires_grad_()
    grid = 64 if name == "rk4" else torch.linspace(0, 1, 65)
    value = log_likelihood(narrow, x, grid, name).value
    (score,) = torch.autograd.grad(value.sum(), x)
    assert torch.allclose(score, -x / VARIANCE, atol=1e-3)


@pytest.mark.parametrize("probes", [None, 4])
def test_what_the_velocity_depends_on_gets_its_gradient(probes):
    """d log N(x; 0, s) / ds = (x^2 / s - 1) / (2 s)."""
    s = torch.tensor(VARIANCE, dtype=torch.float64, requires_grad=True)
    field = lambda x, t: narrow(x, t, s)  # noqa: E731
    value = log_likelihood(field, POINTS, 64, "rk4", probes=probes).value
    (slope,) = torch.autograd.grad(value.sum(), s)
    want = (POINTS.square() / VARIANCE - 1).sum() / (2 * VARIANCE)
    assert float(slope) == pytest.approx(float(want), abs=1e-3)


def test_without_gradients_nothing_is_kept():
    with torch.no_grad():
        assert not log_likelihood(narrow, POINTS.clone().requires_grad_(), 8).value.requires_grad


@pytest.mark.parametrize("ts", [[1.0, 0.5, 0.0], [0.5, 0.75, 1.0], [0.0, 0.5]])
def test_a_grid_that_does_not_lead_from_noise_to_data_is_refused(ts):
    with pytest.raises(ValueError, match="rises from 0"):
        log_likelihood(narrow, POINTS, ts)


@pytest.mark.parametrize("name", ["euler_maruyama", "churn", "jump"])
def test_a_solver_that_follows_no_path_is_refused(name):
    with pytest.raises(ValueError, match="choose a deterministic solver"):
        log_likelihood(narrow, POINTS, 8, name)


def test_inference_mode_gives_the_same():
    plain = log_likelihood(narrow, POINTS, 16).value
    with torch.inference_mode():
        assert torch.equal(log_likelihood(narrow, POINTS * 1, 16).value, plain)


@pytest.mark.parametrize("probes", [None, 2])
def test_a_velocity_detached_from_the_state_is_refused(probes):
    net = torch.nn.Linear(3, 3).double()

    def frozen(x, t):  # noqa: ARG001
        with torch.no_grad():
            return net(x)

    for v in (frozen, lambda x, t: net(x.detach())):  # noqa: ARG005
        with pytest.raises(ValueError, match="carries no gradient to x"):
            log_likelihood(v, torch.randn(2, 3).double(), 8, probes=probes)


def test_data_that_is_no_tensor_is_refused():
    with pytest.raises(TypeError, match="the data is list"):
        log_likelihood(lambda x, t: -x, [[1.0, 2.0]], 8)  # noqa: ARG005


@pytest.mark.parametrize("probes", [None, 4])
def test_a_detached_velocity_in_one_buffer_is_refused(probes):
    x = normal(3, 2, seed=0)
    out = torch.empty_like(x)

    @torch.no_grad()
    def v(x, t):  # noqa: ARG001
        return torch.neg(x, out=out)

    with pytest.raises(ValueError, match="carries no gradient to x"):
        log_likelihood(v, x, 8, probes=probes)


WRONG = {
    "None": (lambda x, t: None, "returned NoneType"),  # noqa: ARG005
    "shape": (lambda x, t: x[:1], r"has shape \(1, 2\)"),  # noqa: ARG005
    "complex": (lambda x, t: x + 0j, "return its real part"),  # noqa: ARG005
    "batched": (lambda x, t: x * t[:, None], r"samplers\.batched"),
    "in place": (lambda x, t: x.neg_(), "wrote into its state x"),  # noqa: ARG005
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_velocity_is_refused_by_a_likelihood_too(case):
    v, told = WRONG[case]
    with pytest.raises((TypeError, ValueError), match=told):
        log_likelihood(v, normal(3, 2, seed=0), 8)


def test_what_has_no_density_is_refused():
    x = normal(3, 2, seed=0)
    for data in (x[0, 0], x[:, :0]):
        with pytest.raises(ValueError, match="expected samples with elements"):
            log_likelihood(lambda x, _: -x, data, 8)
    with pytest.raises(ValueError, match="inpainting leads states back"):
        log_likelihood(samplers.inpaint(lambda x, _: -x, x, x, torch.ones(3, 2)), x, 8)
    assert log_likelihood(lambda x, _: -x, x[:0], 8).bits_per_dimension.shape == (0,)
