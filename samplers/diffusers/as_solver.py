"""A diffusers flow scheduler as a solver of this package."""

import copy
import inspect
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from diffusers import SchedulerMixin
from torch import Tensor

from samplers.core import Path, Solver, Velocity

NEAR_NOISE = 1 - 1e-6  # log-SNR schedulers divide by 1 - sigma: UniPC's own remedy, given to all
NEAR_DATA = 1e-6  # and those that cannot land on 0 (DEIS, SA-Solver) stop this close to it


def drive(scheduler: SchedulerMixin, v: Velocity, x: Tensor, sign: int = -1) -> Iterator[Tensor]:
    """Runs a prepared scheduler as a pipeline does: one evaluation of v and a state per `step`.

    The time comes from `scheduler.sigmas`: several schedulers round `timesteps` to integers, which
    increases UniPC's error by a factor of 1.6 at 64 evaluations.
    """
    scheduler.set_begin_index(0)
    for i, timestep in enumerate(scheduler.timesteps):
        t = 1 - scheduler.sigmas[i].to("cpu", torch.float64)
        x = scheduler.step(sign * v(x, t), timestep, x, return_dict=False)[0]
        yield x


def as_shipped(
    scheduler: SchedulerMixin, v: Velocity, noise: Tensor, *, sign: int = -1, **timesteps
) -> Tensor:
    """Returns the state after `set_timesteps(**timesteps)` and the scheduler's own loop, without
    corrections.

    So DPM-Solver++ starts at sigma 0.999, DEIS stops with noise left, and Euler's last step is
    0.001 long. `sign` is +1 for schedulers whose models predict +v (MiniMax-H3).
    """
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(**timesteps)
    *_, x = drive(scheduler, v, noise, sign)
    return x


def place(scheduler: SchedulerMixin, ts: Tensor, sign: int = -1) -> None:
    """Sets a scheduler's grid to ts, whatever its `shift` and `sigmas` are.

    `sigmas` and `timesteps` are overwritten after `set_timesteps`, because a grid that is passed in
    would be shifted again. Schedulers with two evaluations per step keep their doubled entries.
    """
    mu = {"mu": 0.0} if getattr(scheduler.config, "use_dynamic_shifting", False) else {}
    scheduler.set_timesteps(len(ts) - 1 + (sign > 0), **mu)
    sigmas = 1 - ts.to("cpu", torch.float64)
    if hasattr(scheduler.config, "prediction_type"):
        sigmas[0] = sigmas[0].clamp(max=NEAR_NOISE)
        if not hasattr(scheduler.config, "final_sigmas_type"):
            sigmas[-1] = sigmas[-1].clamp(min=NEAR_DATA)
    if len(scheduler.timesteps) > len(ts) - 1:
        sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
    scheduler.sigmas = sigmas
    ahead = sigmas[:-1]
    scheduler.timesteps = 1 - ahead if sign > 0 else scheduler.config.num_train_timesteps * ahead


def placed(scheduler: SchedulerMixin, v: Velocity, x: Tensor, ts: Tensor, sign: int = -1) -> Path:
    """Yields the scheduler's states at each of ts[1:], on the grid ts instead of its own."""
    if not bool((ts.diff() > 0).all()):
        raise ValueError(
            "the time grid falls, and a diffusers scheduler runs only from noise to data; pass a "
            "grid that rises"
        )
    scheduler = copy.deepcopy(scheduler)
    place(scheduler, ts, sign)
    sigmas = scheduler.sigmas
    for i, state in enumerate(drive(scheduler, v, x, sign)):
        if i + 2 >= len(sigmas) or sigmas[i + 1] != sigmas[i + 2]:  # not halfway through a step
            yield state


@dataclass(frozen=True)
class _Placed:
    """`placed` as a solver's path; a class, so that it pickles."""

    scheduler: SchedulerMixin
    sign: int

    def __call__(self, v: Velocity, x: Tensor, ts: Tensor) -> Path:
        return placed(self.scheduler, v, x, ts, self.sign)


def from_diffusers(
    scheduler: SchedulerMixin, *, sign: int = -1, stochastic: bool = False
) -> Solver:
    """Returns any diffusers flow scheduler as a solver on any rising grid; `as_shipped` uses its
    own grid.

    The scheduler is copied, never changed. `sign` is +1 if the model predicts data - noise. Noise
    of a stochastic scheduler comes from torch's global generator.
    """
    if "sample" not in inspect.signature(scheduler.step).parameters:
        raise TypeError(
            f"{type(scheduler).__name__} has no step(model_output, timestep, sample); give a "
            "scheduler of diffusers"
        )
    twice = scheduler.order == 2

    return Solver(
        name=type(scheduler).__name__,
        path=_Placed(scheduler, sign),
        order=None,
        calls=2 if twice else 1,
        extra=-1 if twice else 0,
        stochastic=stochastic,
        doc=f"diffusers' {type(scheduler).__name__} on a grid of ours.",
    )
