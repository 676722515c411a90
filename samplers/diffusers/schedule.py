"""Converts the schedule in a diffusers configuration to a grid in our time t = 1 - sigma.

Shifts are applied to the grid that the solver or the caller chose. If the configuration names a
rule for the sigmas (karras, exponential, beta, a terminal one), diffusers' own scheduler computes
them.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import pairwise
from numbers import Real
from operator import index
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from samplers.grids import GRIDS

RULES = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
DIFFUSION = ("beta_start", "beta_schedule", "beta_min", "sigma_data")  # of other paths
MOST_MU = 100  # exp of it; pipelines compute 0.5 to 3
SHARED = (
    "num_train_timesteps",
    "shift",
    "use_dynamic_shifting",
    "time_shift_type",
    "shift_terminal",
    *RULES,
)


def refuse(config: Mapping[str, Any]) -> None:
    """Raises ValueError for a configuration that a velocity solver does not support."""
    kind = config.get("_class_name", "the configuration")
    flow = not any(name in config for name in DIFFUSION)
    predicts = config.get("prediction_type", "flow_prediction" if flow else "no flow_prediction")
    if predicts != "flow_prediction":
        raise ValueError(
            f"{kind} is for a model with prediction_type={predicts!r}; solvers here drive models "
            "that predict the velocity (flow_prediction), so keep this pipeline's own scheduler"
        )
    if not config.get("use_flow_sigmas", True):
        raise ValueError(
            f"{kind} has use_flow_sigmas=False, so its noise schedule is not that of a flow; set "
            "use_flow_sigmas=True if the model is a flow"
        )
    named = [name for name in RULES if config.get(name)]
    if named and not flow:
        raise ValueError(
            f"{kind} with {named[0]} computes its sigmas for a variance-preserving path; pass "
            f"{named[0]}=False and choose a grid, or keep the pipeline's own scheduler"
        )
    for name, plain in (("stochastic_sampling", False), ("final_sigmas_type", "zero")):
        if config.get(name, plain) != plain:
            raise ValueError(
                f"{kind} has {name}={config[name]!r}, an option of its own steps, which a solver "
                f"here would not follow; pass {name}={plain!r} and choose a solver by name"
            )


def checked(sigmas: Sequence[float] | Tensor) -> list[float]:
    """Returns sigmas that a pipeline passes. Raises ValueError unless they fall in (0, 1]."""
    values = numbers(sigmas, "sigmas")
    told = f"sigmas fall from at most 1 to above 0, where the last step then ends; got {values}"
    if not values or not all(0 < s <= 1 for s in values):  # NaN included
        raise ValueError(f"{told:.300}")
    if any(b >= a for a, b in pairwise(values)):
        raise ValueError(f"{told:.300}")
    return values


def numbers(values: Iterable[float] | Tensor, name: str) -> list[float]:
    """Returns a list of numbers. Raises TypeError for anything else."""
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError, RuntimeError):
        shown = " ".join(f"{values!r:.80}".split())
        raise TypeError(f"{name} is {shown}; expected a list of numbers") from None


def moment(timestep: Tensor | float) -> float:
    """Returns a timestep in float32, as `timesteps` holds it, also if it is repeated per sample."""
    try:
        values = torch.as_tensor(timestep, device="cpu").detach().reshape(-1).float()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"the timestep is {timestep!r:.60}; expected a number") from None
    if not len(values) or not bool((values == values[0]).all()):
        raise ValueError(
            f"step got the timesteps {values.tolist()!s:.80}; expected the same for all samples"
        )
    return float(values[0])


def refuse_unknown(given: Iterable[str], known: Collection[str]) -> None:
    """Raises TypeError for the first keyword that the scheduler does not have."""
    for name in given:
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else "see help(SolverScheduler)"
            raise TypeError(f"SolverScheduler has no option {name!r:.60}; {hint}")


def whole(steps: Any) -> int:
    """Returns a number of steps as an int. Raises TypeError for one that is not whole."""
    try:
        if isinstance(steps, bool):
            raise TypeError
        return index(steps)
    except TypeError:
        raise TypeError(
            f"num_inference_steps is {steps!r:.60}; expected a whole number of steps"
        ) from None


def positive(value: Any, name: str) -> float:
    """Returns a finite number above 0. Raises ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < math.inf:
        raise ValueError(f"{name} is {value!r:.60}; expected a number above 0")
    return value


def by_rule(config: Any) -> bool:
    """Returns whether the configuration has a rule for the sigmas beyond a shift."""
    return bool(config.shift_terminal) or any(config[name] for name in RULES)


def from_rule(
    config: Any, shift: float, steps: int, sigmas: list[float] | None, mu: float | None
) -> Tensor:
    """Returns the grid as diffusers' scheduler computes it."""
    if config.use_dynamic_shifting:
        dynamic(config, mu)  # raises for a mu that is none
    given = {name: config[name] for name in SHARED} | {"shift": shift}
    theirs = FlowMatchEulerDiscreteScheduler(**given)
    theirs.set_timesteps(steps if sigmas is None else None, sigmas=sigmas, mu=mu)
    return 1 - theirs.sigmas.double()


def shifted(config: Any, shift: float, ts: Tensor, mu: float | None) -> Tensor:
    """sigma -> shift sigma / (1 + (shift - 1) sigma) on a grid; a dynamic shift comes from mu."""
    shift = dynamic(config, mu) if config.use_dynamic_shifting else shift
    sigmas = 1 - ts
    return 1 - shift * sigmas / (1 + (shift - 1) * sigmas)


def dynamic(config: Any, mu: float | None) -> float:
    """Returns the shift exp(mu), or mu itself if time_shift_type is "linear"."""
    if mu is None:
        raise ValueError("use_dynamic_shifting is on, and mu is missing; pass mu to set_timesteps")
    try:
        value = float(mu)
    except (TypeError, ValueError):
        value = math.nan
    exponential = config.time_shift_type == "exponential"
    if not (abs(value) < MOST_MU if exponential else 0 < value < math.inf):
        told = f"between {-MOST_MU} and {MOST_MU}" if exponential else "above 0"
        raise ValueError(
            f"mu is {mu!r:.40}; expected a number {told} with {config.time_shift_type!r} shifting"
        )
    return math.exp(value) if exponential else value


def even(sigmas: list[float]) -> bool:
    """Returns whether these are the sigmas 1, 1 - 1/N, ..., 1/N that pipelines pass by default."""
    n = len(sigmas)
    return all(abs(s - (1 - i / n)) < 1e-4 for i, s in enumerate(sigmas))


def fixed_grid(times: list[float], steps: int) -> Tensor:
    """Returns a list of times as the grid of a run of so many steps."""
    if len(times) != steps + 1:
        raise ValueError(
            f"this scheduler's grid has {len(times) - 1} steps and the pipeline asks for {steps}; "
            f"pass num_inference_steps={len(times) - 1} or make a grid for {steps}"
        )
    return torch.tensor(times, dtype=torch.float64, device="cpu")


def listed(grid: Any) -> str | list[float] | None:
    """Returns a configuration's form of a grid: a name, or a list of times (as of a PilotGrid)."""
    if isinstance(grid, str) and grid not in GRIDS:
        raise ValueError(GRIDS.unknown(grid))
    return grid if grid is None or isinstance(grid, str) else numbers(grid, "grid")
