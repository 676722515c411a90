"""Grids run from 0 to 1 and have the densities they are named for."""

from dataclasses import replace

import pytest
import torch

import samplers
from samplers import GRIDS, grid, sample


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("n", [1, 2, 3, 5, 10, 64, 1000])
def test_a_grid_goes_strictly_up_from_0_to_1(name, n):
    ts = GRIDS[name](n)
    assert ts.shape == (n + 1,) and ts.dtype == torch.float64
    assert ts[0] == 0 and ts[-1] == 1 and (ts.diff() > 0).all()


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_without_steps_is_refused(name):
    with pytest.raises(ValueError, match="expected at least 1"):
        GRIDS[name](0)


def test_a_grid_is_one_function_and_found_by_its_name():
    @grid
    def halves(n):
        return torch.tensor([0.0, *[0.5**k for k in range(n - 1, -1, -1)]], dtype=torch.float64)

    try:
        half = replace(samplers.SOLVERS["euler"], grid="halves")
        seen = []
        sample(lambda x, t: seen.append(float(t)) or x, torch.ones(1, 1), 4, half)
        assert seen == [0, 0.125, 0.25, 0.5]
    finally:
        del GRIDS["halves"]


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0, 7.3])
def test_the_shift_is_that_of_the_noise_level(shift):
    sigma = torch.linspace(1, 0, 9, dtype=torch.float64)
    expected = 1 - shift * sigma / (1 + (shift - 1) * sigma)
    torch.testing.assert_close(samplers.shifted(8, shift), expected)


def test_beta_of_a_half_is_the_arcsine_law():
    torch.testing.assert_close(samplers.beta(10, 0.5, 0.5), samplers.cosine(10), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("a", "b"), [(0.6, 0.6), (1.0, 2.0), (3.0, 0.7)])
def test_beta_gives_the_quantiles_of_its_law(a, b):
    from scipy.stats import beta

    expected = torch.from_numpy(beta.ppf(samplers.uniform(12).numpy(), a, b))
    torch.testing.assert_close(samplers.beta(12, a, b), expected, rtol=0, atol=1e-3)


def test_karras_is_uniform_in_the_root_of_the_noise_ratio():
    first, last = 1 / (1 + 50.0), 1 / (1 + 0.1)
    ts = first + samplers.karras(20, rho=5.0, low=0.1, high=50.0) * (last - first)
    roots = (1 / ts - 1) ** (1 / 5)
    torch.testing.assert_close(roots.diff(), roots.diff().mean().expand(20))


def test_logit_normal_is_symmetric_and_shortest_in_the_middle():
    ts = samplers.logit_normal(9)
    torch.testing.assert_close(ts, 1 - ts.flip(0))
    assert ts.diff().argmin() == 4


def test_the_trigonometric_grid_has_equal_angles():
    ts = samplers.trigonometric(7)
    angles = torch.atan2(ts, 1 - ts).diff()
    torch.testing.assert_close(angles, angles.mean().expand(7))


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_power_is_the_power_of_equal_steps(exponent):
    torch.testing.assert_close(samplers.power(4, exponent), samplers.uniform(4) ** exponent)
    torch.testing.assert_close(samplers.quadratic(4), 1 - samplers.power(4, 2).flip(0))


def test_no_tilt_is_uniform_and_the_first_term_makes_steps_grow():
    torch.testing.assert_close(samplers.tilted(6, ()), samplers.uniform(6))
    growth = samplers.tilted(6, (0.3,)).diff()
    torch.testing.assert_close(growth[1:] / growth[:-1], torch.full((5,), 0.1).exp().double())


@pytest.mark.parametrize(
    "bad",
    [lambda: samplers.shifted(4, 0), lambda: samplers.power(4, -1), lambda: samplers.beta(4, 0, 1)],
)
def test_parameters_that_make_no_grid_are_refused(bad):
    with pytest.raises(ValueError, match="expected a positive number"):
        bad()


def test_a_field_that_turns_early_moves_the_grid_of_auto_and_no_other():
    def v(x, t):
        seen.append(float(t))
        return -x

    v.time_shift = 3.0
    for name, moved in (("auto", True), ("euler", False)):
        seen = []
        samplers.sample(samplers.count(v), torch.ones(1, 2), 8, name)
        own = samplers.SOLVERS[name].grid
        plain = samplers.GRIDS[own](8)
        whole = samplers.tilted(8, shifted=True)
        expected = whole / (3 - 2 * whole) if moved else plain
        torch.testing.assert_close(torch.tensor(seen).double(), expected[:-1])
        seen = []
        samplers.sample(v, torch.ones(1, 2), plain, name)  # times of one's own stay
        torch.testing.assert_close(torch.tensor(seen).double(), plain[:-1])
