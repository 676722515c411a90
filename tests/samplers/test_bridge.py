"""A diffusers scheduler as a solver."""

import diffusers
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler as Euler

import samplers
from samplers.benchmark.peers import SCHEDULERS
from samplers.benchmark.problems import gaussian, straight
from samplers.diffusers import as_shipped, from_diffusers
from samplers.grids import shifted, uniform

FIELD = gaussian(dim=4)
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
HERE = [row for row in SCHEDULERS if hasattr(diffusers, row[1])]  # some are of newer versions
EXACT = [row for row in HERE if not row[3].get("stochastic")]


def made(row):
    _, kind, arguments, facts = row
    return from_diffusers(getattr(diffusers, kind)(**arguments), sign=facts.get("sign", -1))


def inside(v):
    def checked(x, t):
        assert 0 <= t <= 1
        return v(x, t)

    return samplers.count(checked)


@pytest.mark.parametrize("row", EXACT, ids=lambda row: row[0])
def test_a_scheduler_lands_on_the_data_with_the_calls_it_declares(row):
    noise, solver = FIELD.noise(64), made(row)
    v = inside(FIELD.velocity)
    x = samplers.sample(v, noise, uniform(32), solver)
    assert v.calls == solver.cost(32)
    assert (x - FIELD.solution(noise)).square().mean().sqrt() < 0.1


@pytest.mark.parametrize("row", EXACT, ids=lambda row: row[0])
def test_a_scheduler_is_exact_on_a_straight_path(row):
    field = straight(dim=3)
    noise = field.noise(5)
    x = samplers.sample(field.velocity, noise, uniform(4), made(row))
    assert torch.allclose(x, field.solution(noise), atol=2e-4)  # log-SNR ones stop 1e-6 short


def test_diffusers_euler_on_our_grid_is_our_euler():
    noise, ts = FIELD.noise(8), shifted(7, 2.0)
    theirs = samplers.sample(FIELD.velocity, noise, ts, from_diffusers(Euler()))
    assert torch.allclose(
        theirs, samplers.sample(FIELD.velocity, noise, ts, "euler"), rtol=0, atol=1e-5
    )


def test_a_shift_is_not_applied_to_a_grid_of_ours():
    noise, ts = FIELD.noise(8), uniform(6)
    plain, twice = (
        samplers.sample(FIELD.velocity, noise, ts, from_diffusers(Euler(shift=s))) for s in (1, 3)
    )
    assert torch.equal(plain, twice)


def test_a_scheduler_yields_the_state_at_every_time_of_the_grid():
    heun = from_diffusers(diffusers.FlowMatchHeunDiscreteScheduler())
    ts = uniform(5)
    states = [x for _, x in samplers.trajectory(FIELD.velocity, FIELD.noise(3), ts, heun)]
    ours = [x for _, x in samplers.trajectory(FIELD.velocity, FIELD.noise(3), ts, "heun")]
    assert len(states) == 6
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(states[:-1], ours[:-1], strict=True))


def test_the_given_scheduler_is_not_touched():
    scheduler = diffusers.UniPCMultistepScheduler(**FLOW)
    before = scheduler.timesteps.clone()
    samplers.sample(FIELD.velocity, FIELD.noise(2), 5, from_diffusers(scheduler))
    assert torch.equal(scheduler.timesteps, before) and scheduler.step_index is None


def test_as_shipped_euler_wastes_its_last_step():
    """Its default grid ends at sigma 0.001, so N steps do the work of N - 1."""
    noise = FIELD.noise(64)
    v = samplers.count(FIELD.velocity)
    x = as_shipped(Euler(), v, noise, num_inference_steps=8)
    wide, narrow = (samplers.sample(FIELD.velocity, noise, n, "euler") for n in (7, 8))
    assert v.calls == 8
    assert (x - wide).norm() < (x - narrow).norm() / 5


def test_a_falling_grid_is_refused():
    with pytest.raises(ValueError, match="noise to data"):
        samplers.sample(FIELD.velocity, FIELD.noise(2), [1.0, 0.5, 0.0], from_diffusers(Euler()))
