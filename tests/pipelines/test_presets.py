"""What a preset makes of guidance and of the solver's own grid."""

import pytest
import torch

import samplers
from janusflow.pipelines.presets import Quality
from janusflow.pipelines.time_grid import STRONG_SHIFT, TIME_SHIFT, time_shift, weight_of
from samplers.grids import earlier


def test_a_grid_by_name_gets_a_time_at_each_jump_of_the_guidance():
    rule = samplers.guidance_interval(3.0, 0.22, 0.61)
    for quality in (Quality(steps=30), Quality(steps=30, grid="quadratic")):
        _, ts = quality.path(rule)
        assert {0.22, 0.61} <= set(ts.tolist()) and len(ts) == 31
        assert len(quality.path(2.0)[1]) == 31
    _, ts = Quality(steps=12, guided=(0.0, 0.47)).path(2.0)
    assert 0.47 in ts.tolist()


def test_a_list_of_times_stays_as_it_is():
    given = torch.linspace(0, 1, 13, dtype=torch.float64)
    rule = samplers.guidance_interval(3.0, 0.22, 0.61)
    assert torch.equal(Quality(steps=12, grid=given).path(rule)[1], given)


@pytest.mark.parametrize(
    ("sampler", "due"),
    [
        ("auto", earlier(samplers.GRIDS["tilted"](8, shifted=True), TIME_SHIFT)),
        ("euler", samplers.GRIDS["uniform"](8)),
    ],
)
def test_auto_places_its_steps_early_and_the_published_solver_does_not(sampler, due):
    torch.testing.assert_close(Quality(sampler=sampler, steps=8).path()[1], due)


RULES = samplers.RULES


@pytest.mark.parametrize(
    ("guidance", "weight"),
    [
        (None, 1.0),
        (5, 5.0),
        (torch.tensor([2.0, 5.0]), 5.0),
        (RULES["cfg"](5.0), 5.0),
        (samplers.guidance_interval(4.0, 0.1, 0.9), 4.0),
        (samplers.cfg_rescale(samplers.guidance_interval(3.0)), 3.0),
        (samplers.cfg_zero_star(weight=6.0), 6.0),
        (samplers.cfg(lambda t: 5.0), 1.0),  # noqa: ARG005
        (samplers.Rule(lambda c, u, t: c), 1.0),  # noqa: ARG005
    ],
)
def test_strong_guidance_places_the_steps_of_auto_earlier_still(guidance, weight):
    assert weight_of(guidance) == weight
    assert time_shift(guidance) == (STRONG_SHIFT if weight >= 4 else TIME_SHIFT)


def test_a_preset_and_the_field_agree_on_the_shift(tiny_pipe):
    strong = samplers.guidance_interval(5.0, 0.3, 0.9)
    field = tiny_pipe.field(["a"], strong)
    assert field.time_shift == STRONG_SHIFT and tiny_pipe.field(["a"], 2.0).time_shift == TIME_SHIFT
    _, ts = Quality(sampler="auto", steps=12).path(strong)
    torch.testing.assert_close(
        ts, samplers.core.times(12, samplers.SOLVERS["auto"], field.jumps, STRONG_SHIFT)
    )
