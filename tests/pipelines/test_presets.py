"""What a preset makes of guidance and of the solver's own grid."""

import pytest
import torch

import samplers
from janusflow.pipelines.presets import Quality
from janusflow.pipelines.time_grid import TIME_SHIFT
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


@pytest.mark.parametrize(("sampler", "shift"), [("auto", TIME_SHIFT), ("euler", 1.0)])
def test_auto_places_its_steps_early_and_the_published_solver_does_not(sampler, shift):
    solver, ts = Quality(sampler=sampler, steps=8).path()
    torch.testing.assert_close(ts, earlier(samplers.GRIDS[solver.grid](8), shift))
