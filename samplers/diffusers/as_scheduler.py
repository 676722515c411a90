"""A solver of this package as a scheduler for diffusers' flow pipelines."""

# ruff: noqa: ARG002 - `register_to_config` reads the arguments that `__init__` leaves alone

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from torch import Tensor

from samplers.core import Solver, find
from samplers.diffusers import schedule
from samplers.diffusers.replay import call_times, replay, resumed
from samplers.fields import per_sample
from samplers.grids import GRIDS, interpolate
from samplers.seeds import Generators, drawn_seeds, seeded
from samplers.solvers.linear_multistep import learned
from samplers.states import one_tensor


class SolverScheduler(SchedulerMixin, ConfigMixin):
    """A solver of this package as a scheduler for diffusers' flow pipelines.

        pipe.scheduler = SolverScheduler.from_config(pipe.scheduler.config, solver="ab2")

    `timesteps` has one entry per network evaluation, so a solver with two evaluations per step has
    twice the entries, as diffusers' Heun does. A run may start at any of them (image-to-image). The
    state is kept in float32; changes that the pipeline makes to the latents between steps
    (inpainting, callbacks), in place or not, are carried along as an offset.

    Args (all kept by `save_config`):
        solver: a name in `samplers.SOLVERS`, or the .json file of a learned one; adaptive ones have
            no list of timesteps and raise ValueError.
        options: the solver's options.
        grid: a name in `samplers.GRIDS`, which is then shifted; a list of times or a PilotGrid,
            which is not; None for the sigmas that the pipeline passes, or else the solver's own.
        shift, flow_shift: sigma -> shift sigma / (1 + (shift - 1) sigma), applied once.
        use_dynamic_shifting, time_shift_type: shift = exp(mu), or mu if "linear", with the mu that
            the pipeline computes from base_shift, max_shift, base_image_seq_len, max_image_seq_len.
        shift_terminal, use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas: sigmas as
            FlowMatchEulerDiscreteScheduler computes them.
        invert_sigmas: the model counts from 0 (noise) to 1 and predicts +v, as Mochi does.
        use_flow_sigmas: True tells the Flux pipeline to leave the grid to the scheduler.
        seed: of a stochastic solver; None draws a seed from the generator that the pipeline passes
            to `step`, or from torch's global one. The latents' random numbers are never used.

    Raises ValueError for configurations of models that do not predict a velocity, and for schedules
    that only their own scheduler supports.
    """

    _compatibles: ClassVar[list[str]] = ["FlowMatchEulerDiscreteScheduler"]
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(
        self,
        solver: str = "heun",
        options: dict | None = None,
        grid: str | Sequence[float] | None = None,
        num_train_timesteps: int = 1000,
        shift: float = 1.0,
        flow_shift: float | None = None,
        use_dynamic_shifting: bool = False,
        time_shift_type: str = "exponential",
        base_shift: float = 0.5,
        max_shift: float = 1.15,
        base_image_seq_len: int = 256,
        max_image_seq_len: int = 4096,
        shift_terminal: float | None = None,
        use_karras_sigmas: bool = False,
        use_exponential_sigmas: bool = False,
        use_beta_sigmas: bool = False,
        invert_sigmas: bool = False,
        use_flow_sigmas: bool = True,
        prediction_type: str = "flow_prediction",
        stochastic_sampling: bool = False,
        final_sigmas_type: str = "zero",
        seed: int | None = None,
    ):
        self.register_to_config(grid=schedule.listed(grid))
        schedule.positive(num_train_timesteps, "num_train_timesteps")
        seed is None or seeded(seed)
        schedule.refuse(self.config)
        if time_shift_type not in ("exponential", "linear"):
            raise ValueError(
                f"time_shift_type is {time_shift_type!r}; expected 'exponential' or 'linear'"
            )
        if flow_shift is not None and shift not in (1.0, flow_shift):
            raise ValueError(
                f"shift={shift} and flow_shift={flow_shift} are two names of one option; pass only "
                "one"
            )
        if grid is not None and schedule.by_rule(self.config):
            raise ValueError(
                "the configuration has a rule for the sigmas (karras, exponential, beta or "
                "terminal), and a grid is given too; leave one of them out"
            )
        self.set_shift(shift if flow_shift is None else flow_shift)
        self._solver = _solver(solver, options)
        self.sigma_min, self.sigma_max = 0.0, 1.0
        self.timesteps = self.sigmas = self.num_inference_steps = self._begin_index = None
        self.order = self._solver.calls
        self._forget()

    @classmethod
    def from_config(cls, config=None, return_unused_kwargs: bool = False, **kwargs: Any):
        """Returns the scheduler with another's configuration, including its model's schedule.

        Keywords replace its settings; TypeError for one that is none of ours.
        """
        if not return_unused_kwargs:
            schedule.refuse_unknown(kwargs, inspect.signature(cls.__init__).parameters)
        if isinstance(config, Mapping):
            schedule.refuse({**config, **kwargs})
        return super().from_config(config, return_unused_kwargs=return_unused_kwargs, **kwargs)

    @property
    def shift(self) -> float:
        """The resolution shift in use."""
        return self._shift

    def set_shift(self, shift: float) -> None:
        """Sets the shift, above 0, from the next `set_timesteps` on."""
        self._shift = schedule.positive(shift, "shift")

    @property
    def begin_index(self) -> int | None:
        return self._begin_index

    @property
    def step_index(self) -> int | None:
        """The number of the next evaluation, None before the first."""
        return None if self._noise is None else self._first + len(self._velocities)

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Sets where in `timesteps` the next run starts (image-to-image starts late)."""
        self._begin_index = begin_index

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        sigmas: Sequence[float] | Tensor | None = None,
        mu: float | None = None,
        timesteps: Sequence[float] | Tensor | None = None,
    ) -> None:
        """Sets the grid to num_inference_steps steps, or to `sigmas` followed by 0.

        `timesteps` are the values passed to the model at these sigmas (CogView4); without them they
        are num_train_timesteps times the sigmas.
        """
        told = None if timesteps is None else schedule.numbers(timesteps, "timesteps")
        if sigmas is None and told is not None:
            sigmas = [t / self.config.num_train_timesteps for t in told]
        sigmas = None if sigmas is None else schedule.checked(sigmas)
        counts = {len(x) for x in (sigmas, told) if x is not None}
        counts |= set() if num_inference_steps is None else {schedule.whole(num_inference_steps)}
        if len(counts) != 1:
            raise ValueError(
                f"set_timesteps got these numbers of steps: {sorted(counts) or 'none'}; pass "
                "num_inference_steps, sigmas or timesteps, and equal numbers if several"
            )
        (self.num_inference_steps,) = counts
        self._ts = self._grid(self.num_inference_steps, sigmas, mu)
        self._times = torch.tensor(
            call_times(self._solver, self._ts), dtype=torch.float64, device="cpu"
        )
        self._label(told, device)
        # pipelines start at (number of steps) x order, where sigmas have made their number that
        # of the entries here
        self.order = self._solver.calls if sigmas is None else 1
        self._begin_index = None
        self._forget()

    def _grid(self, steps: int, sigmas: list[float] | None, mu: float | None) -> Tensor:
        grid = self.config.grid
        if schedule.by_rule(self.config):
            return schedule.from_rule(self.config, self._shift, steps, sigmas, mu)
        if sigmas is not None and grid is not None and not schedule.even(sigmas):
            raise ValueError("sigmas and a grid are both given; leave one of them out")
        if grid is not None and not isinstance(grid, str):
            return schedule.fixed_grid(grid, steps)
        if sigmas is not None and grid is None:
            ts = 1 - torch.tensor([*sigmas, 0.0], dtype=torch.float64, device="cpu")
        else:
            place = grid or self._solver.grid
            ts = (GRIDS[place] if isinstance(place, str) else place)(steps)
        return schedule.shifted(self.config, self._shift, ts, mu)

    def _label(self, told: list[float] | None, device: str | torch.device | None) -> None:
        """Sets `sigmas` and `timesteps` of each evaluation, in the model's own units."""
        inverted, scale = self.config.invert_sigmas, self.config.num_train_timesteps
        sigmas = self._times if inverted else 1 - self._times
        end = self._ts[-1:] if inverted else 1 - self._ts[-1:]
        self.sigmas = torch.cat([sigmas, end]).float()
        timesteps = scale * sigmas
        if told is not None:
            last = 0.0 if told[-1] > 0 else told[-1]
            labels = torch.tensor([*told, last], dtype=torch.float64, device="cpu")
            timesteps = interpolate(self._times, self._ts, labels)
        self.timesteps = timesteps.float().to(device)
        self._labels, self._sigmas = timesteps.float().tolist(), self.sigmas.clone()

    def _forget(self) -> None:
        self._noise = self._handed = self._seeds = None
        self._velocities = []
        self._first, self._edited = 0, False

    def _begin(self, timestep: Tensor | float, sample: Tensor, generator: Generators) -> None:
        """Finds the evaluation with this timestep and the rest of the grid from there."""
        if self.timesteps is None:
            raise ValueError("the scheduler has no timesteps yet; call set_timesteps first")
        if not torch.equal(torch.as_tensor(self.sigmas, device="cpu").float(), self._sigmas):
            raise ValueError(
                "scheduler.sigmas were changed after set_timesteps, which no solver here follows; "
                "pass them to set_timesteps(sigmas=...)"
            )
        first = self._begin_index
        if first is None:
            first = self._call_at(timestep)
        if not 0 <= first < len(self._labels):
            raise ValueError(
                f"begin_index is {first}; expected 0 to {len(self._labels) - 1}, a place in "
                "scheduler.timesteps"
            )
        self._expect(first, timestep)
        self._restart(first, sample)
        if self._solver.stochastic:
            self._seeds = drawn_seeds(self.config.seed, generator, len(sample))

    def _call_at(self, timestep: float) -> int:
        """Returns the last evaluation with this timestep, where a step starts."""
        at = [i for i, own in enumerate(self._labels) if own == timestep]
        if not at:
            raise ValueError(
                f"{self.config.solver} evaluates nothing at timestep {timestep:g}; pass one of "
                "scheduler.timesteps"
            )
        return at[-1]

    def _expect(self, number: int, timestep: float) -> None:
        """Raises ValueError if this timestep is that of another evaluation."""
        own = self._labels[number]
        if timestep != own and timestep in self._labels:
            raise ValueError(
                f"step got timestep {timestep:g} where evaluation {number + 1} of "
                f"{len(self._labels)} is at {own:g}; call step for each of scheduler.timesteps in "
                "order, and set_timesteps before another run"
            )

    def index_for_timestep(
        self, timestep: Tensor | float, schedule_timesteps: Tensor | None = None
    ) -> int:
        """Returns the number of the evaluation with this timestep; of two, the second."""
        known = self.timesteps if schedule_timesteps is None else schedule_timesteps
        at = (known == timestep).nonzero()[:, 0].tolist()
        if not at:
            raise ValueError(
                f"{float(timestep):g} is not one of the scheduler's timesteps; take one of "
                "scheduler.timesteps"
            )
        return at[1] if len(at) > 1 else at[0]

    def scale_model_input(self, sample: Tensor, timestep: Tensor | float | None = None) -> Tensor:
        """Returns the sample unchanged, as flow models need no scaling."""
        return sample

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor | float,
        sample: Tensor,
        generator: Generators = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Tensor]:
        """Takes the output -v at (sample, timestep); returns the state for the next evaluation."""
        one_tensor(model_output, "model_output")
        one_tensor(sample, "the sample")
        if model_output.shape != sample.shape:
            raise ValueError(
                f"model_output has shape {tuple(model_output.shape)} and sample "
                f"{tuple(sample.shape)}; pass the model's output for this sample"
            )
        timestep = schedule.moment(timestep)
        if self._noise is None:
            self._begin(timestep, sample, generator)
        else:
            self._expect(self.step_index, timestep)
            self._take_up(sample)
        velocity = model_output.to(self._noise.dtype, copy=True)
        self._velocities.append(velocity if self.config.invert_sigmas else -velocity)
        x = replay(self._seeded(), self._noise, self._rest, self._velocities) + self._offset
        x = x.to(model_output.dtype)
        self._handed = x.clone()  # the pipeline may write into what it gets
        if self._first + len(self._velocities) == len(self._labels):
            self._forget()
        return SchedulerOutput(prev_sample=x) if return_dict else (x,)

    def _take_up(self, sample: Tensor) -> None:
        """Continues from the state that the pipeline has modified.

        The first modification starts a new run of a multistep solver, because its earlier
        velocities belong to another path. Later ones (inpainting modifies every step) are kept as
        an offset, so that unchanged parts keep their history.
        """
        if sample.shape != self._handed.shape:
            raise ValueError(
                f"the sample has shape {tuple(sample.shape)} in a run of "
                f"{tuple(self._handed.shape)}; call set_timesteps before another run"
            )
        if torch.equal(sample, self._handed.to(sample.dtype)):
            return
        first, self._edited = not self._edited, True
        if first and self._solver.calls == 1:
            try:
                self._restart(self._first + len(self._velocities), sample)
                return
            except ValueError:  # a rule that cannot begin here
                pass
        self._offset = self._offset + (sample - self._handed).to(self._noise.dtype)

    def _restart(self, first: int, sample: Tensor) -> None:
        self._path, self._rest = resumed(self._solver, self._ts, first)
        self._first, self._offset, self._velocities = first, 0.0, []
        self._noise = sample.to(torch.promote_types(sample.dtype, torch.float32), copy=True)
        self._seeds = self._seeds and [seed + 1 for seed in self._seeds]

    def _seeded(self) -> Solver:
        """Returns the solver with generators that draw the same numbers in every replay."""
        if self._seeds is None:
            return self._path
        drawn = [torch.Generator().manual_seed(seed) for seed in self._seeds]
        return self._path.with_options(generator=drawn if len(drawn) > 1 else drawn[0])

    def scale_noise(
        self, sample: Tensor, timestep: Tensor | float, noise: Tensor | None = None
    ) -> Tensor:
        """sigma noise + (1 - sigma) sample, with the sigma of the evaluation at this timestep.

        Without such an evaluation sigma is timestep / num_train_timesteps.
        """
        if noise is None:
            raise ValueError("noise is missing; pass noise of the sample's shape")
        share = self._noise_share(torch.as_tensor(timestep, device="cpu"))
        if len(share) not in (1, len(sample)) or not bool(((share >= 0) & (share <= 1)).all()):
            told = torch.as_tensor(timestep, device="cpu").tolist()
            raise ValueError(
                f"the timesteps are {told!s:.80}; expected one, or one "
                f"for each of {len(sample)} samples, from 0 to {self.config.num_train_timesteps}"
            )
        sigma = per_sample(share.to(sample), sample)
        return sigma * noise + (1 - sigma) * sample

    def _noise_share(self, timestep: Tensor) -> Tensor:
        values = timestep.detach().float().cpu().reshape(-1)
        share = values.double() / self.config.num_train_timesteps
        share = 1 - share if self.config.invert_sigmas else share
        if self.timesteps is None:
            return share
        same = torch.tensor(self._labels, device="cpu")[:, None] == values
        known = (1 - self._times)[same.int().argmax(0)]
        return torch.where(same.any(0), known, share)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """`scale_noise` under the name and with the argument order of older schedulers."""
        return self.scale_noise(original_samples, timesteps, noise)

    def __len__(self) -> int:
        return self.config.num_train_timesteps


def _solver(name: str, options: dict | None) -> Solver:
    if not isinstance(name, str) or not isinstance(options, Mapping | None):
        raise TypeError(
            f"solver is {name!r:.60} and options {options!r:.60}; expected the solver's name and a "
            "dict, which a configuration can keep"
        )
    chosen = learned(name) if name.endswith(".json") else find(name, **(options or {}))
    if chosen.adaptive:
        raise ValueError(
            f"{name} chooses its steps while it runs, and a diffusers pipeline needs them "
            "beforehand; choose a solver with fixed steps"
        )
    if chosen.maps:
        raise ValueError(
            f"{name} integrates flow maps u(x, t, s), and a pipeline's model predicts velocities; "
            "choose a solver of velocities"
        )
    return chosen
