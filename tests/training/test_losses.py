"""The losses against plain computations, and the densities of time against their formulas."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from janusflow.training import losses, timestep_sampling

MANY = torch.linspace(0, 1, 20_001, dtype=torch.float64)[1:-1]
DENSITY = {  # p(t) as the papers write it, t from noise to data
    "uniform": lambda t: torch.ones_like(t),
    "logit_normal": lambda t: (
        torch.exp(-(torch.logit(t) ** 2) / 2) / (math.sqrt(2 * math.pi) * t * (1 - t))
    ),
    "cosmap": lambda t: 2 / (math.pi - 2 * math.pi * t + 2 * math.pi * t**2),
    "u_shaped": lambda t: (torch.exp(4 * t) + torch.exp(4 - 4 * t)) / (math.expm1(4) / 2),
}


@pytest.mark.parametrize("name", timestep_sampling.DENSITIES)
def test_times_lie_in_the_unit_interval_and_grow_or_fall_with_u(name):
    t = timestep_sampling.DENSITIES[name](MANY)
    steps = t.diff()
    assert (t > 0).all() and (t < 1).all()
    assert (steps > 0).all() or (steps < 0).all()


@pytest.mark.parametrize("name", DENSITY)
def test_times_follow_the_density_of_the_paper(name):
    t = timestep_sampling.DENSITIES[name](MANY)
    measured = MANY.diff() / t.diff()  # du / dt
    middle = (t[1:] + t[:-1]) / 2
    inner = (middle - 0.5).abs() < 0.4
    assert torch.allclose(measured[inner], DENSITY[name](middle[inner]), rtol=2e-3)


def test_mode_has_its_mode_in_the_middle_and_the_published_formula():
    t = timestep_sampling.mode(MANY, scale=0.8)
    mirrored = 1 - t  # the paper's noise level
    expected = 1 - MANY - 0.8 * (torch.cos(math.pi * MANY / 2) ** 2 - 1 + MANY)
    assert torch.allclose(t, expected) and torch.allclose(mirrored.flip(0), expected)
    slowest = t.diff().abs().argmin()
    assert abs(t[slowest] - 0.5) < 0.01


@pytest.mark.parametrize("name", timestep_sampling.DENSITIES)
@pytest.mark.parametrize("shift", [0.4, 1.0, 3.0])
def test_mirrored_densities_agree_between_the_two_time_conventions(name, shift):
    """A recipe of the other convention (0 data, 1 noise; SD3) drawn and shifted there, then turned
    around, has the same shift here and minus the mean."""
    options = {"mean": 0.7, "std": 0.8} if name == "logit_normal" else {}
    level = timestep_sampling.DENSITIES[name](MANY, **options)  # SD3's sigma
    # SD3's shift raises the noise level, which is the other way round on our axis
    level = (shift * level / (1 + (shift - 1) * level)).sort().values
    turned = {"mean": -0.7, "std": 0.8} if name == "logit_normal" else {}  # others are symmetric
    ours = timestep_sampling.at(MANY, name, shift=shift, **turned)
    assert torch.allclose(1 - level.flip(0), ours.sort().values, atol=1e-5)


def test_a_shift_above_one_moves_times_to_the_noise_and_keeps_the_ends():
    t = torch.tensor([0.0, 0.25, 0.5, 1.0])
    moved = timestep_sampling.shifted(t, 3.0)
    assert (moved <= t).all() and moved[0] == 0 and moved[-1] == 1
    assert torch.allclose(moved[2], torch.tensor(0.25))  # s = 1/2 becomes 3/4
    assert torch.allclose(timestep_sampling.shifted(moved, 1 / 3), t)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 200), st.integers(0, 2**31), st.sampled_from(sorted(timestep_sampling.DENSITIES))
)
def test_stratified_times_put_one_in_every_share(count, seed, name):
    t = timestep_sampling.at(
        timestep_sampling.strata(count, torch.Generator().manual_seed(seed)), name
    )
    edges = timestep_sampling.DENSITIES[name](
        torch.linspace(1e-6, 1 - 1e-6, count + 1, dtype=torch.float64)
    )
    low, high = edges[:-1].minimum(edges[1:]), edges[:-1].maximum(edges[1:])
    order = low.argsort()
    t = t.double().sort().values
    assert (t >= low[order] - 1e-4).all() and (t <= high[order] + 1e-4).all()


@pytest.mark.parametrize("world", [1, 2, 4])
def test_any_number_of_processes_draws_the_same_global_batch(world):
    shares = np.array_split(range(16), world)
    rows = [range(int(s[0]), int(s[-1]) + 1) for s in shares]

    def whole(draw):
        return torch.cat([draw(r) for r in rows])

    for step in (0, 7):
        t = whole(lambda r, step=step: timestep_sampling.step_times(3, step, r, 16, "uniform"))
        noise = whole(lambda r, step=step: timestep_sampling.step_noise(3, step, r, (2, 3)))
        assert torch.equal(t, timestep_sampling.step_times(3, step, range(16), 16, "uniform"))
        assert torch.equal(noise, timestep_sampling.step_noise(3, step, range(16), (2, 3)))
        assert (t.sort().values * 16).floor().tolist() == list(range(16))


def test_steps_seeds_rows_and_streams_draw_different_numbers():
    draws = [
        timestep_sampling.step_uniform(s, k, range(4), 4, stream)
        for s in (0, 1)
        for k in (0, 1)
        for stream in (1, 2)
    ]
    draws += [
        timestep_sampling.step_times(s, k, range(4), 4, "uniform") for s in (0, 1) for k in (0, 1)
    ]
    draws += list(timestep_sampling.step_noise(0, 0, range(3), (4,))) + list(
        timestep_sampling.step_noise(0, 1, range(3), (4,))
    )
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(draws, 2))


def test_unknown_densities_options_and_weights_are_refused_by_name():
    u = torch.rand(4)
    with pytest.raises(ValueError, match="no density named 'gauss'; choose one of uniform"):
        timestep_sampling.at(u, "gauss")
    with pytest.raises(ValueError, match="'cosmap' has no option 'mean'; it has none"):
        timestep_sampling.at(u, "cosmap", mean=1.0)
    with pytest.raises(ValueError, match="expected positive numbers"):
        timestep_sampling.at(u, "uniform", shift=0.0)
    with pytest.raises(ValueError, match="no loss weight named 'x'"):
        losses.weighted(u, u, "x")


# Losses


def test_flow_and_next_token_equal_a_plain_computation():
    v, noise, data = torch.randn(3, 2, 4, 5)
    expected = [((v[i] - data[i] + noise[i]) ** 2).mean() for i in range(2)]
    assert torch.allclose(losses.flow(v, noise, data), torch.stack(expected))
    logits, labels = torch.randn(2, 4, 7), torch.tensor([[1, 2, -100, 3], [-100, -100, 6, -100]])
    plain = []
    for row in range(2):
        steps = [i for i in range(1, 4) if labels[row, i] >= 0]
        plain.append(
            sum(-logits[row, i - 1].log_softmax(-1)[labels[row, i]] for i in steps) / len(steps)
        )
    assert torch.allclose(losses.next_token(logits, labels), torch.stack(plain))


def test_similarities_equal_a_plain_computation():
    a, b = torch.randn(2, 3, 5, 8)
    for i in range(3):
        cosines = [a[i, j] @ b[i, j] / a[i, j].norm() / b[i, j].norm() for j in range(5)]
        assert torch.allclose(losses.alignment(a, b)[i], 1 - sum(cosines) / 5, atol=1e-6)
        d = (a[i] - b[i]).abs().flatten().tolist()
        plain = sum(x * x / 0.1 if x < 0.05 else x - 0.025 for x in d) / len(d)
        assert losses.smooth_l1(a, b)[i].item() == pytest.approx(plain, rel=1e-5)


def test_the_dispersive_loss_equals_a_plain_computation_and_spares_what_is_apart():
    h = torch.randn(4, 3, 2)
    pairs = [
        math.exp(-((h[i] - h[j]) ** 2).sum().item() / (6 * 0.5)) for i in range(4) for j in range(4)
    ]
    assert losses.dispersive(h).mean().item() == pytest.approx(math.log(sum(pairs) / 16), abs=1e-5)
    assert losses.dispersive(torch.ones(4, 3)).mean().abs() < 1e-6
    assert losses.dispersive(1e3 * h).mean().item() == pytest.approx(math.log(1 / 4), abs=1e-5)
    h = torch.zeros(4, 3, requires_grad=True)
    losses.dispersive(h).mean().backward()
    assert torch.isfinite(h.grad).all()


def test_contrastive_matching_moves_the_best_velocity_as_its_formula_says():
    """Of a fixed batch, the v that minimises flow + w contrastive is (v - w other) / (1 - w)."""
    noise, data = torch.randn(2, 6, 3)
    v = torch.zeros(6, 3, requires_grad=True)
    total = losses.flow(v, noise, data) + 0.05 * losses.contrastive(v, noise, data)
    for _ in range(200):
        (grad,) = torch.autograd.grad(total.sum(), v)
        with torch.no_grad():
            v -= grad
        total = losses.flow(v, noise, data) + 0.05 * losses.contrastive(v, noise, data)
    target = data - noise
    best = (target - 0.05 * target.roll(1, 0)) / 0.95
    assert torch.allclose(v, best, atol=1e-4)
    with pytest.raises(ValueError, match="at least two"):
        losses.contrastive(v[:1], noise[:1], data[:1])


def test_coupling_finds_the_cheapest_of_all_orders():
    noise, data = torch.randn(2, 5, 2, 3)
    cost = {
        order: (data - noise[list(order)]).square().sum().item()
        for order in itertools.permutations(range(5))
    }
    coupled = losses.couple(noise, data)
    assert (data - coupled).square().sum().item() == pytest.approx(min(cost.values()))
    assert sorted(coupled.flatten().tolist()) == sorted(noise.flatten().tolist())


def test_losses_by_time_add_up_over_batches():
    t = torch.tensor([0.0, 0.05, 0.1, 0.55, 0.999, 1.0])
    values = torch.arange(6.0)
    sums, counts = losses.by_time(values, t)
    assert counts.tolist() == [2, 1, 0, 0, 0, 1, 0, 0, 0, 2] and sums.sum() == values.sum()
    halves = [losses.by_time(values[i : i + 3], t[i : i + 3]) for i in (0, 3)]
    assert torch.equal(halves[0][0] + halves[1][0], sums)
    assert sums[0] / counts[0] == 0.5


@pytest.mark.parametrize("name", losses.WEIGHTS)
def test_weights_by_time_multiply_each_sample(name):
    t, values = torch.linspace(0, 1, 11), torch.rand(11)
    w = losses.WEIGHTS[name](t)
    assert torch.allclose(losses.weighted(values, t, name), values * w) and (w >= 0).all()
    snr = (t / (1 - t)) ** 2
    expected = {
        "even": torch.ones(11),
        "noise_side": 2 - 2 * t,
        "data_side": 2 * t,
        "min_snr": torch.where(t < 1, snr.clamp(max=5) * (1 - t) ** 2, 0.0),
    }
    assert torch.allclose(w, expected[name])
