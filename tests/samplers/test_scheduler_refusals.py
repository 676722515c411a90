"""A scheduler of ours refuses in a sentence what it would otherwise integrate wrongly."""

import pytest
import torch

import samplers
from samplers.diffusers import SolverScheduler


def walk(scheduler, timesteps, samples=1):
    x = torch.zeros(samples, 4)
    for t in timesteps:
        x = scheduler.step(torch.ones_like(x), t, x, return_dict=False)[0]
    return x


def begun(scheduler, place):
    scheduler.set_begin_index(place)
    walk(scheduler, scheduler.timesteps[4:])


def noised(scheduler, *timesteps):
    scheduler.scale_noise(torch.zeros(3, 4), torch.tensor(timesteps), torch.zeros(3, 4))


def dynamic(kind, mu):
    scheduler = SolverScheduler(use_dynamic_shifting=True, time_shift_type=kind)
    scheduler.set_timesteps(4, mu=mu)


def test_timesteps_that_the_caller_cut_are_those_of_the_full_run():
    scheduler = SolverScheduler(solver="euler", grid="cosine")
    scheduler.set_timesteps(8)
    share = scheduler.sigmas[3]
    scheduler.timesteps = scheduler.timesteps[3:]
    assert torch.allclose(walk(scheduler, scheduler.timesteps), -share.expand(1, 4))


WRONG = {
    "skipped": (lambda s: walk(s, s.timesteps[[0, 3]]), "timestep 500 where evaluation 2 of 8"),
    "again": (lambda s: [walk(s, s.timesteps[:1]) for _ in "ab"], "set_timesteps before another"),
    "sigmas": (lambda s: (s.sigmas.mul_(0.5), walk(s, [1000])), "sigmas were changed after"),
    "begin": (lambda s: begun(s, 6), "step got timestep 500 where evaluation 7"),
    "no place": (lambda s: begun(s, -4), "begin_index is -4; expected 0 to 7"),
    "batch": (lambda s: (walk(s, [1000]), walk(s, s.timesteps[1:], 2)), "in a run of"),
    "several": (lambda s: walk(s, [s.timesteps[:2]]), "expected the same for all samples"),
    "no output": (lambda s: s.step(None, 1000, torch.zeros(1, 4)), "model_output is NoneType"),
    "no timestep": (lambda s: walk(s, [None]), "the timestep is None; expected a number"),
    "times": (lambda s: noised(s, 500.0, 200.0), "expected one, or one for each of 3 samples"),
    "later": (lambda s: noised(s, 5000.0), "from 0 to 1000"),
    "mu": (lambda _: dynamic("exponential", float("nan")), "mu is nan; expected a number between"),
    "linear": (lambda _: dynamic("linear", 0), "mu is 0; expected a number above"),
    "texts": (lambda s: s.set_timesteps(sigmas="abc"), "sigmas is 'abc'; expected a list"),
    "grid": (lambda _: SolverScheduler(grid="unifrom"), "did you mean 'uniform'"),
    "solver": (lambda _: SolverScheduler(samplers.SOLVERS["heun"]), "expected the solver's name"),
    "seed": (lambda _: SolverScheduler(seed=-1), "the seed is -1; expected 0 or more"),
    "shift": (lambda s: SolverScheduler.from_config(s.config, shift=-1), "shift is -1; expected a"),
    "set_shift": (lambda s: s.set_shift(0), "shift is 0; expected a number above 0"),
    "keyword": (lambda s: SolverScheduler.from_config(s.config, solvr="abm"), "mean 'solver'"),
    "steps": (lambda s: s.set_timesteps(4.5), r"num_inference_steps is 4\.5; expected a whole"),
    "output": (
        lambda s: s.step(torch.zeros(1, 4), s.timesteps[0], torch.zeros(2, 4)),
        r"model_output has shape \(1, 4\) and sample \(2, 4\)",
    ),
    "noise": (lambda s: s.scale_noise(torch.zeros(1, 4), s.timesteps[:1]), "noise is missing"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_would_be_another_run_in_silence_is_refused_by_name(case):
    call, message = WRONG[case]
    scheduler = SolverScheduler()
    scheduler.set_timesteps(4)
    with pytest.raises((ValueError, TypeError), match=message):
        call(scheduler)
