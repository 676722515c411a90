"""Picard's iteration ends where Euler's rule ends."""

import pytest
import torch

import samplers
from samplers.benchmark.problems import mixture

FIELD = mixture(dim=3)
NOISE = FIELD.noise(5)


def broadcast(x, t):
    """The mixture's velocity takes one time; here each row has its own."""
    rows = [FIELD.velocity(row[None], at.reshape(())) for row, at in zip(x, t, strict=True)]
    return torch.cat(rows)


def test_without_tolerance_it_is_euler():
    ts = [0.0, 0.1, 0.4, 0.7, 1.0]
    exact = samplers.sample(FIELD.velocity, NOISE, ts, "euler")
    torch.testing.assert_close(samplers.picard(broadcast, NOISE, ts, tolerance=0.0), exact)


def test_fewer_sweeps_than_steps_reach_the_tolerance():
    v = samplers.count(broadcast)
    found = samplers.picard(v, NOISE, 40, tolerance=1e-3)
    exact = samplers.sample(FIELD.velocity, NOISE, 40, "euler")
    assert v.calls < 20
    assert float((found - exact).square().mean(1).max().sqrt()) < 5e-3


def test_one_sweep_is_enough_where_the_velocity_is_constant():
    v = samplers.count(lambda x, t: torch.ones_like(x))  # noqa: ARG005
    samplers.picard(v, NOISE, 40)
    assert v.calls == 2  # the second finds that nothing moves


def test_fields_of_a_grid_and_negative_tolerances_are_refused():
    field = samplers.guide((broadcast, broadcast), samplers.cfg_plus_plus(0.5))
    with pytest.raises(ValueError, match="depends on the run's time grid"):
        samplers.picard(field, NOISE, 4)
    with pytest.raises(ValueError, match="expected an RMS"):
        samplers.picard(broadcast, NOISE, 4, tolerance=-1.0)
