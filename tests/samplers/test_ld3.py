"""Times trained by gradients through the solver."""

import pytest
import torch

import samplers
from samplers.benchmark.problems import mixture
from samplers.search.ld3 import ball, fit_times
from samplers.search.learn import log_error

FIELD = mixture(dim=4, modes=5, seed=3, spread=0.05)


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_trained_times_serve_other_noise_better_than_even_ones(solver):
    noise = FIELD.noise(24, seed=1)
    ts = fit_times(FIELD.velocity, noise, 6, solver, reference=FIELD.solution(noise), iterations=60)
    other = FIELD.noise(64, seed=2)
    found, even = (
        float(
            log_error(samplers.sample(FIELD.velocity, other, grid, solver), FIELD.solution(other))
        )
        for grid in (ts, 6)
    )
    assert ts[0] == 0 and ts[-1] == 1 and (ts.diff() > 0).all()
    assert found < even - 0.2


def test_a_ball_lets_noise_move_and_no_farther_than_its_radius():
    shift = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    inside = ball(shift, 0.1)
    assert inside.square().mean(1).sqrt().max() < 0.1 + 1e-6
    assert torch.equal(ball(shift * 0, 0.1), torch.zeros(5, 4))
    assert torch.equal(ball(shift, 0.0), torch.zeros(5, 4))
    ball(shift, 0.1).sum().backward()
    assert shift.grad.isfinite().all()


def test_solvers_without_gradients_to_their_times_are_refused():
    with pytest.raises(ValueError, match="abm3 carries no gradient"):
        fit_times(FIELD.velocity, FIELD.noise(2), 6, "abm3")
