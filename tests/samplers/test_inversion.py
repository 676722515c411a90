import math

import pytest
import torch

from samplers.core import SOLVERS, count, sample
from samplers.solvers.inversion import img2img_timesteps, inpaint, interpolate, round_trip

STD = torch.tensor([0.2, 0.5, 2.0], dtype=torch.float64)


def gaussian(x, t):
    """The velocity for data from N(0, diag(STD^2)): the flow takes noise to STD * noise."""
    t = t.to(x.dtype)
    return (t * STD**2 - (1 - t)) / ((1 - t) ** 2 + t**2 * STD**2) * x


def bent(x, t):
    return -2 * t.to(x) * x * x


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def grid(steps):
    return torch.linspace(0, 1, steps + 1, dtype=torch.float64)


def test_rf_solver_is_the_midpoint_rule():
    x = draw(5, 3).abs()
    expected = sample(bent, x, grid(7), "midpoint")
    torch.testing.assert_close(sample(bent, x, grid(7), "rf_solver"), expected)


@pytest.mark.parametrize("backward", [False, True])
def test_fireflow_is_of_second_order_at_one_call_per_step(backward):
    sizes = torch.tensor([1.0, 2.0], dtype=torch.float64)
    x, errors = torch.tensor([0.3, 0.45], dtype=torch.float64), []
    exact = x / (1 - x) if backward else x / (1 + x)
    for steps in (64, 128):
        ts = torch.cat((torch.zeros(1), sizes.repeat(steps // 2).cumsum(0))).double()
        ts = (ts / ts[-1]).flip(0) if backward else ts / ts[-1]
        v = count(bent)
        errors.append(float((sample(v, x, ts, "fireflow") - exact).abs().max()))
        assert v.calls == steps + 1
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("name", ["euler", "heun", "rf_solver", "fireflow", "rk4"])
def test_the_noise_of_a_round_trip_is_the_flows_own(name):
    data = draw(6, 3) * STD
    trip = round_trip(gaussian, data, grid(64), name)
    torch.testing.assert_close(trip.noise, data / STD, atol=0.2, rtol=0)


@pytest.mark.parametrize("name", ["euler", "heun", "rf_solver", "fireflow"])
def test_the_error_of_a_round_trip_falls_at_the_order_of_the_solver(name):
    data = draw(6, 3) * STD
    errors = [round_trip(gaussian, data, grid(n), name).error.mean() for n in (128, 256)]
    assert float(torch.log2(errors[0] / errors[1])) > SOLVERS[name].order - 0.1


def test_a_round_trip_reports_error_calls_and_psnr():
    data = draw(2, 3)
    trip = round_trip(gaussian, data, 8, "heun")
    assert trip.calls == 16
    expected = (trip.restored - data).square().mean(1).sqrt()
    torch.testing.assert_close(trip.error, expected)
    torch.testing.assert_close(trip.psnr(2.0), 10 * torch.log10(4 / expected**2))


@pytest.mark.parametrize("name", ["euler", "rf_solver", "fireflow"])
def test_a_straight_path_is_undone_exactly(name):
    data = draw(2, 3, 4, 4)
    shift = draw(2, 3, 4, 4, seed=1)
    trip = round_trip(lambda *_: shift, data, grid(3), name)
    torch.testing.assert_close(trip.noise, data - shift)
    assert trip.error.max() < 1e-14


@pytest.mark.parametrize("strength", [0.05, 0.5, 0.81, 1.0])
def test_an_edit_starts_where_its_strength_says(strength):
    ts = img2img_timesteps(grid(10), strength)
    assert float(ts[0]) == pytest.approx(1 - strength) and ts[-1] == 1
    assert (ts.diff() > 0).all() and len(ts) - 1 == math.ceil(round(10 * strength, 6))


def test_more_strength_moves_further_from_the_data():
    data, noise, distances = draw(64, 3, seed=1), draw(64, 3, seed=2), []
    for strength in (0.1, 0.4, 0.7, 1.0):
        ts = img2img_timesteps(grid(20), strength)
        edited = sample(gaussian, interpolate(data, noise, ts[0]), ts)
        distances.append(float((edited - data).square().mean()))
    assert distances == sorted(distances)


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.01, math.nan])
def test_a_strength_out_of_range_is_refused(strength):
    with pytest.raises(ValueError, match="choose it above 0 and at most 1"):
        img2img_timesteps(grid(10), strength)


def smooth(x, t):
    """A velocity in which every element feels all others of its sample."""
    return torch.tanh(x.flatten(1).sum(1).view(-1, 1, 1, 1) + x) - t.to(x) * x


@pytest.mark.parametrize("name", ["euler", "heun", "fireflow", "rk4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_the_mask_keeps_is_kept(name, dtype):
    data, noise = draw(2, 3, 4, 4, dtype=dtype), draw(2, 3, 4, 4, seed=1, dtype=dtype)
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    mask[..., :2] = True
    edited = sample(inpaint(smooth, data, noise, mask), noise, grid(10), name)
    torch.testing.assert_close(edited[..., 2:], data[..., 2:])
    assert (edited[..., :2] - data[..., :2]).abs().mean() > 0.1


def test_the_inside_of_the_mask_sees_the_outside_as_it_is_at_that_time():
    data, noise, seen = draw(1, 1, 2, 2), draw(1, 1, 2, 2, seed=1), []

    def v(x, t):
        seen.append((x, float(t)))
        return smooth(x, t)

    mask = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    sample(inpaint(v, data, noise, mask), noise, grid(4), "heun")
    for x, t in seen:
        torch.testing.assert_close(x[..., 0], interpolate(data, noise, t)[..., 0])


@pytest.mark.parametrize("name", ["euler_maruyama", "sde_heun", "churn", "overshoot"])
def test_stochastic_solvers_lead_back_to_what_the_mask_keeps(name):
    data, noise = draw(8, 1, 4, 4), draw(8, 1, 4, 4, seed=1)
    mask = torch.zeros(4, 4)
    mask[:, :2] = 1
    generator = torch.Generator().manual_seed(0)
    edited = sample(
        inpaint(smooth, data, noise, mask),
        noise,
        grid(100),
        name,
        strength=2.0,
        generator=generator,
    )
    assert (edited - data)[..., 2:].square().mean().sqrt() < 0.1
    assert (edited - data)[..., :2].square().mean().sqrt() > 0.1


def test_a_full_mask_is_no_mask():
    data, noise = draw(2, 1, 3, 3), draw(2, 1, 3, 3, seed=1)
    everywhere = inpaint(smooth, data, noise, torch.ones(3, 3))
    assert torch.equal(sample(everywhere, noise, grid(5)), sample(smooth, noise, grid(5)))


def test_a_mask_out_of_range_is_refused():
    with pytest.raises(ValueError, match="values outside"):
        inpaint(smooth, draw(1, 1, 2, 2), draw(1, 1, 2, 2), torch.tensor([[0.0, 255.0]]))
