import math
from itertools import chain

import pytest
import torch

from samplers.core import SOLVERS, count, sample
from samplers.solvers import stochastic
from samplers.solvers.stochastic import RATES

NAMES = ["euler_maruyama", "sde_heun", "churn", "overshoot"]
SDES = ["euler_maruyama", "sde_heun"]
MEAN, STD = 1.5, 0.4


def gaussian(x, t):
    """The velocity for data from N(MEAN, STD^2)."""
    t = t.to(x.dtype)
    variance = (1 - t) ** 2 + t**2 * STD**2
    return MEAN + (t * STD**2 - (1 - t)) / variance * (x - t * MEAN)


def two_modes(x, t, weight=0.3, at=2.0, std=0.3):
    """The velocity for data near -at with probability `weight`, near +at otherwise."""
    t = t.to(x.dtype)
    variance = (1 - t) ** 2 + t**2 * std**2
    means = torch.tensor([-at, at], dtype=x.dtype)
    offset = x[..., None] - t * means
    logits = torch.tensor([weight, 1 - weight], dtype=x.dtype).log() - offset**2 / (2 * variance)
    each = means + (t * std**2 - (1 - t)) / variance * offset
    return (logits.softmax(-1) * each).sum(-1)


def uneven(steps):
    """Steps alternating 1 : 2."""
    sizes = torch.tensor([1.0, 2.0], dtype=torch.float64).repeat(steps // 2)
    grid = torch.cat((torch.zeros(1, dtype=torch.float64), sizes.cumsum(0)))
    return grid / grid[-1]


def end_moments(monkeypatch, name, ts, **options):
    """Mean and variance at the end of the grid, without sampling: the field is linear, so the end
    is affine in the start and in each kick of noise. One row of the batch holds each response."""
    kicks = chain(range(2, len(ts) + 1), iter(lambda: None, 0))

    def one_kick(x, _):
        unit = torch.zeros_like(x)
        unit[next(kicks)] = 1.0
        return unit

    start = torch.zeros(len(ts) + 1, dtype=torch.float64)
    start[1] = 1.0
    monkeypatch.setattr(stochastic, "_normal", one_kick)
    end = sample(gaussian, start, ts, name, **options)
    response = end[1:] - end[0]
    mean, std = (MEAN, STD) if ts[0] > ts[-1] else (0.0, 1.0)
    variance = (response[0] * std) ** 2 + response[1:].square().sum()
    return float(end[0] + response[0] * mean), float(variance)


def weak_errors(monkeypatch, name, steps, backward=False, **options):
    ts = uneven(steps).flip(0) if backward else uneven(steps)
    mean, variance = end_moments(monkeypatch, name, ts, **options)
    exact = (0.0, 1.0) if backward else (MEAN, STD**2)
    return abs(mean - exact[0]), abs(variance - exact[1])


def weak_order(monkeypatch, name, **options):
    coarse, fine = (weak_errors(monkeypatch, name, n, **options)[1] for n in (128, 256))
    return math.log2(coarse / fine)


@pytest.mark.parametrize("name", NAMES)
def test_the_variance_converges_at_the_declared_weak_order(monkeypatch, name):
    order = weak_order(monkeypatch, name)
    assert order == pytest.approx(SOLVERS[name].order, abs=0.1)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", SDES)
def test_that_order_holds_for_every_rate_and_both_ways(monkeypatch, name, rate, backward):
    order = weak_order(monkeypatch, name, rate=rate, backward=backward)
    assert order == pytest.approx(SOLVERS[name].order, abs=0.15)


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_is_exact_where_it_moves_straight(monkeypatch, name):
    assert weak_errors(monkeypatch, name, 6)[0] < 1e-12


@pytest.mark.parametrize("strength", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("name", NAMES)
def test_any_strength_keeps_the_marginals(monkeypatch, name, strength):
    mean, variance = weak_errors(monkeypatch, name, 256, strength=strength)
    assert mean < 0.02 and variance < 0.02 * STD**2 + 0.02 * (name in ("overshoot", SDES[0]))


@pytest.mark.parametrize("name", NAMES)
def test_the_modes_keep_their_weights_and_widths(name):
    n, generator = 4000, torch.Generator().manual_seed(0)
    noise = torch.randn(n, generator=generator, dtype=torch.float64)
    end = sample(two_modes, noise, uneven(100), name, generator=generator)
    left = end[end < 0]
    assert len(left) / n == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / n))
    assert float(left.mean()) == pytest.approx(-2, abs=0.05)
    assert float(left.std()) == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("name", NAMES)
def test_noise_does_go_in(name):
    noise = torch.zeros(64, dtype=torch.float64)
    end = sample(gaussian, noise, uneven(20), name, generator=torch.Generator().manual_seed(0))
    assert end.std() > 0.05


@pytest.mark.parametrize(
    "name, plain",
    [
        ("euler_maruyama", "euler"),
        ("sde_heun", "heun"),
        ("churn", "heun"),
        ("overshoot", "euler"),
    ],
)
def test_no_strength_is_the_solver_of_the_ode(name, plain):
    noise = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    still = sample(gaussian, noise, uneven(10), name, strength=0.0)
    torch.testing.assert_close(still, sample(gaussian, noise, uneven(10), plain))


@pytest.mark.parametrize("shape", [(3,), (3, 4), (3, 2, 4, 4), (3, 1, 2, 2, 2)])
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_with_its_generators_gives_what_its_samples_give(name, shape):
    def seeds():
        return [torch.Generator().manual_seed(i) for i in range(3)]

    noise = torch.randn(shape)
    together = sample(gaussian, noise, uneven(6), name, generator=seeds())
    for i, generator in enumerate(seeds()):
        alone = sample(gaussian, noise[i : i + 1], uneven(6), name, generator=[generator])
        assert torch.equal(together[i : i + 1], alone)


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_fixes_the_result_and_the_global_generator_is_untouched(name):
    noise, state = torch.randn(4), torch.get_rng_state()
    first, second, other = (
        sample(gaussian, noise, uneven(6), name, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", NAMES)
def test_calls_stay_in_the_grid_and_cost_what_is_declared(name):
    ts, times = 0.3 + 0.4 * uneven(8), []

    def noted(x, t):
        times.append(float(t))
        return gaussian(x, t)

    v = count(noted)
    sample(v, torch.randn(4), ts, name, strength=3.0)
    assert v.calls == SOLVERS[name].cost(8)
    assert float(ts[0]) <= min(times) and max(times) <= float(ts[-1])


def test_the_end_is_never_overshot():
    noise = torch.randn(4, dtype=torch.float64)
    torch.testing.assert_close(
        sample(gaussian, noise, [0.0, 1.0], "overshoot", strength=5.0),
        noise + gaussian(noise, torch.tensor(0.0)),
    )


def test_churn_acts_only_in_its_interval():
    noise = torch.randn(4, dtype=torch.float64)
    still = sample(gaussian, noise, uneven(8), "churn", start=2.0, stop=3.0)
    assert torch.equal(still, sample(gaussian, noise, uneven(8), "churn", strength=0.0))


def test_a_new_rate_is_one_function(monkeypatch):
    monkeypatch.setattr(stochastic, "RATES", dict(RATES))

    @stochastic.rate
    def late(strength):
        return lambda t: strength * t**4

    _, error = weak_errors(monkeypatch, "sde_heun", 128, rate="late")
    assert error < 1e-3
    _, same = weak_errors(monkeypatch, "sde_heun", 128, rate=lambda t: t**4)
    assert same == error


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("strength", [-1.0, math.nan, math.inf])
def test_a_strength_that_is_no_amount_is_refused(name, strength):
    with pytest.raises(ValueError, match=r"strength .* give a number >= 0"):
        sample(gaussian, torch.randn(2), uneven(4), name, strength=strength)


@pytest.mark.parametrize("name", NAMES)
def test_generators_that_do_not_fit_are_refused(name):
    with pytest.raises(ValueError, match="2 generators came for 3 samples"):
        sample(gaussian, torch.randn(3), uneven(4), name, generator=[torch.Generator()] * 2)


@pytest.mark.parametrize("name", SDES)
def test_unknown_and_negative_rates_are_refused(name):
    with pytest.raises(ValueError, match="choose one of constant, falling"):
        sample(gaussian, torch.randn(3), uneven(4), name, rate="rapid")
    with pytest.raises(ValueError, match="rate of a stochastic solver is -"):
        sample(gaussian, torch.randn(3), uneven(4), name, rate=lambda t: t - 1)


@pytest.mark.parametrize("name", ["churn", "overshoot"])
def test_what_only_goes_forward_says_so(name):
    with pytest.raises(ValueError, match="from noise to data"):
        sample(gaussian, torch.randn(3), uneven(4).flip(0), name)
