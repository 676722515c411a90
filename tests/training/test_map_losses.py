"""Losses of flow maps vanish on exact maps, and train networks towards them."""

import pytest
import torch

from janusflow.training.objectives import map_losses
from studies import flow_maps

MEAN, DEVIATION = torch.tensor([1.5, -0.5], dtype=torch.float64), 0.4


def spread(t):
    return ((1 - t) ** 2 + (t * DEVIATION) ** 2).sqrt()[:, None]


def exact(x, t, s):
    """The mean velocity of the flow from N(0, I) to N(MEAN, DEVIATION^2), in closed form."""
    t, s = t.to(x), s.to(x)
    apart = (s - t)[:, None]
    still = apart.abs() < 1e-9
    end = s[:, None] * MEAN + spread(s) / spread(t) * (x - t[:, None] * MEAN)
    return torch.where(still, velocity(x, t), (end - x) / torch.where(still, 1, apart))


def velocity(x, t):
    slope = (t * DEVIATION**2 - (1 - t)) / spread(t)[:, 0] ** 2
    return MEAN + slope[:, None] * (x - t[:, None] * MEAN)


@pytest.fixture
def drawn():
    generator = torch.Generator().manual_seed(0)
    t, s = torch.rand(2, 16, generator=generator, dtype=torch.float64).sort(dim=0).values
    x = torch.randn(16, 2, generator=generator, dtype=torch.float64)
    return x, t.clamp(0.02, 0.95), s.clamp(0.05, 1), velocity(x, t.clamp(0.02, 0.95))


@pytest.mark.parametrize("name", ["mean_flow", "improved_mean_flow"])
@pytest.mark.parametrize(("derivative", "within"), [("forward", 1e-12), ("finite", 1e-6)])
def test_the_identity_of_mean_velocities_holds_on_the_exact_map(drawn, name, derivative, within):
    assert getattr(map_losses, name)(exact, *drawn, derivative).max() < within


def test_two_halves_make_the_exact_jump(drawn):
    x, t, s, _ = drawn
    assert map_losses.shortcut(exact, x, t, s).max() < 1e-12


def test_neighbouring_times_end_at_one_place_up_to_the_step(drawn):
    x, t, _, v = drawn
    wide, narrow = (map_losses.consistency(exact, x, t, v, h).mean() for h in (0.02, 0.01))
    assert narrow < wide / 6  # h^3, from h^4 over h


def test_alpha_flow_is_flow_matching_at_one_and_the_identity_at_zero(drawn):
    x, t, s, v = drawn
    whole = map_losses.squared(exact(x, t, s) - v)
    assert torch.allclose(map_losses.alpha_flow(exact, x, t, s, v, 1.0), whole)
    assert map_losses.alpha_flow(exact, x, t, s, v, 1e-3).max() < 1e-3 * whole.max()
    with pytest.raises(ValueError, match="alpha is 0"):
        map_losses.alpha_flow(exact, x, t, s, v, 0.0)


def test_the_study_s_velocity_is_the_exact_one(drawn):
    x, t, _, v = drawn
    field = flow_maps.Mixture(MEAN[None], DEVIATION)
    assert torch.allclose(field.velocity(x, t), v, atol=1e-9)


@pytest.mark.parametrize("name", ["mean_flow", "shortcut", "consistency"])
def test_a_network_learns_to_jump(name):
    rows = flow_maps.run(["gaussian"], [name], 60)
    assert rows[0]["errors"][1] < 0.95  # Euler on the exact field: 1.0
