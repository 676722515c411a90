"""Both bridges to diffusers: its flow schedulers as solvers, our solvers as its schedulers.

diffusers runs sigma from 1 (noise) to 0 (data) and its models predict -v, so t = 1 - sigma and
output = -v. That translation lives in this file and nowhere else.
"""

# ruff: noqa: ARG002 - `register_to_config` reads the arguments that `__init__` leaves alone

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterator
from typing import ClassVar

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from torch import Tensor

from samplers.core import Path, Solver, Velocity, find
from samplers.grids import GRIDS, Grid
from samplers.solvers.linear_multistep import learned

NEAR_NOISE = 1 - 1e-6  # log-SNR schedulers divide by 1 - sigma: UniPC's own remedy, given to all
NEAR_DATA = 1e-6  # and those that cannot land on 0 (DEIS, SA-Solver) stop this close to it


def drive(scheduler: SchedulerMixin, v: Velocity, x: Tensor, sign: int = -1) -> Iterator[Tensor]:
    """Runs a prepared scheduler as a pipeline would, one call of v and one state per `step`.

    The time comes from `scheduler.sigmas`: several schedulers round `timesteps` to integers, which
    costs UniPC a factor of 1.6 in error at 64 calls.
    """
    scheduler.set_begin_index(0)
    for i, timestep in enumerate(scheduler.timesteps):
        t = 1 - scheduler.sigmas[i].to("cpu", torch.float64)
        x = scheduler.step(sign * v(x, t), timestep, x, return_dict=False)[0]
        yield x


def as_shipped(
    scheduler: SchedulerMixin, v: Velocity, noise: Tensor, *, sign: int = -1, **timesteps
) -> Tensor:
    """The state after `set_timesteps(**timesteps)` and the scheduler's own loop, repaired nowhere.

    So DPM-Solver++ starts at sigma 0.999, DEIS stops with noise left and Euler's last step is
    0.001 long. `sign` is +1 for the schedulers whose models predict +v (MiniMax-H3).
    """
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(**timesteps)
    *_, x = drive(scheduler, v, noise, sign)
    return x


def place(scheduler: SchedulerMixin, ts: Tensor, sign: int = -1) -> None:
    """Gives a scheduler the grid ts instead of its own, whatever its `shift` and `sigmas` say.

    Written over `sigmas` and `timesteps` after `set_timesteps`, because a grid that is passed in
    would be shifted once more. Two-call schedulers keep their doubled entries.
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
    """The scheduler's states at each of ts[1:], on the grid ts instead of its own."""
    if not bool((ts.diff() > 0).all()):
        raise ValueError("a diffusers scheduler runs from noise to data only; got a falling grid")
    scheduler = copy.deepcopy(scheduler)
    place(scheduler, ts, sign)
    sigmas = scheduler.sigmas
    for i, state in enumerate(drive(scheduler, v, x, sign)):
        if i + 2 >= len(sigmas) or sigmas[i + 1] != sigmas[i + 2]:  # not halfway through a step
            yield state


def from_diffusers(
    scheduler: SchedulerMixin, *, sign: int = -1, stochastic: bool = False
) -> Solver:
    """Any diffusers flow scheduler as a solver on any rising grid; see `as_shipped` for its own.

    The scheduler is copied, never changed. `sign` is +1 where the model predicts data - noise.
    Noise that a stochastic scheduler draws comes from torch's global generator.
    """
    if "sample" not in inspect.signature(scheduler.step).parameters:
        raise TypeError(f"{type(scheduler).__name__} has no step(model_output, timestep, sample)")
    twice = scheduler.order == 2

    def path(v: Velocity, x: Tensor, ts: Tensor) -> Path:
        return placed(scheduler, v, x, ts, sign)

    return Solver(
        name=type(scheduler).__name__,
        path=path,
        order=None,
        calls=2 if twice else 1,
        extra=-1 if twice else 0,
        stochastic=stochastic,
        doc=f"diffusers' {type(scheduler).__name__} on a grid of ours.",
    )


class Wanted(Exception):
    """Stops a replay at the first velocity that is not known yet; carries the state it is for."""


def call_times(solver: Solver, ts: Tensor) -> list[float]:
    """The times at which a solver calls v on a grid, found by running it on zeros."""
    times = []

    def record(x: Tensor, t: Tensor) -> Tensor:
        times.append(float(t))
        return torch.zeros_like(x)

    for _ in solver.path(record, torch.zeros(1, 1), ts):
        pass
    return times


def replay(solver: Solver, noise: Tensor, ts: Tensor, velocities: list[Tensor]) -> Tensor:
    """The state at which a solver wants its next velocity, or where it ends if it wants none.

    A solver is a pure function of the velocities it is given, so instead of suspending it between
    a pipeline's steps (which would take a thread or a greenlet) it is run again on the recorded
    ones: N(N+1)/2 updates of the state in all, nothing beside N calls of a network.
    """
    known = iter(velocities)

    def v(x: Tensor, t: Tensor) -> Tensor:
        for velocity in known:
            return velocity
        raise Wanted(x, t)

    try:
        *_, x = solver.path(v, noise, ts)
    except Wanted as wanted:
        return wanted.args[0]
    return x


class SolverScheduler(SchedulerMixin, ConfigMixin):
    """A solver of this package as a scheduler that diffusers' flow pipelines accept.

        pipe.scheduler = SolverScheduler.from_config(pipe.scheduler.config, solver="ab2")

    `timesteps` holds one entry per call of the network, so a solver with two calls per step shows
    its pipeline twice the entries, as diffusers' Heun does; `order` is that number. The state is
    kept in float32; what the pipeline does to the latents between two steps (inpainting,
    callbacks) is carried along as an offset.

    Args (all kept by `save_config`):
        solver: a name in `samplers.SOLVERS`, or the .json file of a learned one; adaptive ones
            have no list of timesteps and raise.
        options: the solver's options.
        grid: a name in `samplers.GRIDS`; None for the solver's own.
        shift: sigma -> shift sigma / (1 + (shift - 1) sigma), applied once.
        use_dynamic_shifting, time_shift_type: shift = exp(mu), or mu if "linear", with the mu that
            the pipeline computes from base_shift, max_shift, base_image_seq_len, max_image_seq_len.
        use_flow_sigmas: True tells the Flux pipeline to leave the grid to the scheduler.
        seed: of a stochastic solver, whose draws must repeat in every replay.
    """

    _compatibles: ClassVar[list[str]] = ["FlowMatchEulerDiscreteScheduler"]
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(
        self,
        solver: str = "heun",
        options: dict | None = None,
        grid: str | None = None,
        num_train_timesteps: int = 1000,
        shift: float = 1.0,
        use_dynamic_shifting: bool = False,
        time_shift_type: str = "exponential",
        base_shift: float = 0.5,
        max_shift: float = 1.15,
        base_image_seq_len: int = 256,
        max_image_seq_len: int = 4096,
        use_flow_sigmas: bool = True,
        seed: int = 0,
    ):
        if time_shift_type not in ("exponential", "linear"):
            raise ValueError(
                f'time_shift_type is "exponential" or "linear", got {time_shift_type!r}'
            )
        file = solver.endswith(".json")
        self._solver = learned(solver) if file else find(solver, **(options or {}))
        if self._solver.adaptive:
            raise ValueError(
                f"{solver} chooses its steps as it goes, a pipeline wants them listed beforehand; "
                "choose a solver with fixed steps"
            )
        self.order = self._solver.calls
        self.timesteps = self.sigmas = self.num_inference_steps = self._begin_index = None
        self._forget()

    @property
    def begin_index(self) -> int | None:
        return self._begin_index

    @property
    def step_index(self) -> int | None:
        """The number of the next call, None before the first."""
        return None if self._noise is None else self._first + len(self._velocities)

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Where in `timesteps` the next run starts (image-to-image starts late)."""
        self._begin_index = begin_index

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        sigmas: list[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Lays the grid of num_inference_steps steps, or through `sigmas` and then 0."""
        if (num_inference_steps is None) == (sigmas is None):
            raise ValueError("set_timesteps wants num_inference_steps or sigmas, and only one")
        if sigmas is None:
            ts = self._grid()(num_inference_steps)
        else:
            ts = 1 - torch.as_tensor([*sigmas, 0.0], dtype=torch.float64)
        self._ts = self._shifted(ts, mu)
        times = torch.tensor(call_times(self._solver, self._ts), dtype=torch.float64)
        self.sigmas = torch.cat([1 - times, torch.zeros(1)]).float()
        self.timesteps = (self.config.num_train_timesteps * (1 - times)).float().to(device)
        self.num_inference_steps = len(self._ts) - 1
        self._begin_index = None
        self._forget()

    def _grid(self) -> Grid:
        grid = self.config.grid or self._solver.grid
        return GRIDS[grid] if isinstance(grid, str) else grid

    def _shifted(self, ts: Tensor, mu: float | None) -> Tensor:
        shift = self.config.shift
        if self.config.use_dynamic_shifting:
            if mu is None:
                raise ValueError("use_dynamic_shifting is on: pass mu to set_timesteps")
            shift = math.exp(mu) if self.config.time_shift_type == "exponential" else mu
        sigmas = 1 - ts
        return 1 - shift * sigmas / (1 + (shift - 1) * sigmas)

    def _forget(self) -> None:
        self._noise = self._handed = None
        self._velocities = []
        self._first = 0

    def _begin(self, timestep: Tensor | float, sample: Tensor) -> None:
        """Finds the step that starts at this timestep and what is left of the grid from there."""
        if self.timesteps is None:
            raise ValueError("the scheduler has no timesteps yet; call set_timesteps first")
        steps, cost = self.num_inference_steps, self._solver.cost
        starts = {cost(steps) - cost(steps - i): i for i in range(steps)}
        if (first := self._begin_index) is None:
            at = [i for i in starts if self.timesteps[i] == timestep]
            first = at[0] if at else -1
        rest = self._ts[starts.get(first, 0) :]
        if first not in starts or len(call_times(self._solver, rest)) != cost(steps) - first:
            raise ValueError(
                f"no step of {self.config.solver} starts at timestep {float(timestep):g}; "
                f"pass one of timesteps[i], i = {', '.join(map(str, starts))}"
            )
        self._first, self._rest, self._offset = first, rest, 0.0
        self._noise = sample.to(torch.promote_types(sample.dtype, torch.float32))

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor | float,
        sample: Tensor,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Tensor]:
        """Takes -v at (sample, timestep); returns the state to call the model with next."""
        if self._noise is None:
            self._begin(timestep, sample)
        elif sample is not self._handed:
            self._offset = self._offset + (sample - self._handed).to(self._noise.dtype)
        self._velocities.append(-model_output.to(self._noise.dtype))
        x = replay(self._seeded(), self._noise, self._rest, self._velocities) + self._offset
        self._handed = x = x.to(model_output.dtype)
        if self._first + len(self._velocities) == len(self.timesteps):
            self._forget()
        return SchedulerOutput(prev_sample=x) if return_dict else (x,)

    def _seeded(self) -> Solver:
        if not self._solver.stochastic:
            return self._solver
        generator = torch.Generator().manual_seed(self.config.seed)
        return self._solver.with_options(generator=generator)

    def scale_noise(self, sample: Tensor, timestep: Tensor | float, noise: Tensor) -> Tensor:
        """sigma noise + (1 - sigma) sample, where sigma = timestep / num_train_timesteps."""
        sigma = torch.as_tensor(timestep, device=sample.device) / self.config.num_train_timesteps
        sigma = sigma.to(sample.dtype).reshape(-1, *[1] * (sample.ndim - 1))
        return sigma * noise + (1 - sigma) * sample

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """`scale_noise` under the name and the order of arguments of the older schedulers."""
        return self.scale_noise(original_samples, timesteps, noise)

    def __len__(self) -> int:
        return self.config.num_train_timesteps
