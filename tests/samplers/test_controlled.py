"""Controlled flows: strengths 0 and 1, both directions, intervals."""

import pytest
import torch

import samplers
from samplers.benchmark.problems import mixture

FIELD = mixture(dim=3)
NOISE = FIELD.noise(5)
DATA = FIELD.solution(NOISE)
DOWN = torch.linspace(1, 0, 9, dtype=torch.float64)


def test_no_strength_is_the_velocity():
    field = samplers.controlled(FIELD.velocity, DATA, 0.0)
    found, plain = (samplers.sample(v, NOISE, 12, "heun") for v in (field, FIELD.velocity))
    torch.testing.assert_close(found, plain)


@pytest.mark.parametrize("solver", ["euler", "ab2"])  # they never call v at the end
def test_full_strength_ends_at_the_given_end(solver):
    there = samplers.controlled(FIELD.velocity, NOISE, 1.0, data=False)
    torch.testing.assert_close(samplers.sample(there, DATA, DOWN, solver), NOISE)
    back = samplers.controlled(FIELD.velocity, DATA, 1.0)
    torch.testing.assert_close(samplers.sample(back, NOISE + 1, DOWN.flip(0), solver), DATA)


def test_inverted_under_a_pull_the_noise_lies_nearer_to_the_given_one():
    other = FIELD.noise(5, seed=9)
    field = samplers.controlled(FIELD.velocity, other, 0.5, data=False)
    pulled = samplers.sample(field, DATA, DOWN, "euler")
    plain = samplers.sample(FIELD.velocity, DATA, DOWN, "euler")
    assert float((pulled - other).norm()) < float((plain - other).norm())


def test_an_interval_is_a_jump_and_ends_the_pull():
    field = samplers.controlled(FIELD.velocity, DATA, 0.7, stop=0.25)
    assert field.jumps == (0.25,)
    late = torch.tensor(0.5, dtype=torch.float64)
    torch.testing.assert_close(field(NOISE, late), FIELD.velocity(NOISE, late))


def test_strengths_and_intervals_that_are_none_are_refused():
    with pytest.raises(ValueError, match="strength of a control"):
        samplers.controlled(FIELD.velocity, DATA, 1.5)
    with pytest.raises(ValueError, match="never acts"):
        samplers.controlled(FIELD.velocity, DATA, 0.5, start=0.6, stop=0.2)
