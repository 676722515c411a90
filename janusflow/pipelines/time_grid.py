"""The times of a sampling run, from a name, a rule or a list."""

import math
from collections.abc import Callable
from numbers import Real

import numpy as np
import torch
from torch import Tensor

import samplers
from janusflow.utils.keywords import choice
from samplers.callables import check_arguments
from samplers.core import laid

# guided, these models turn in the first tenth of the path: `auto` moves its grid there
TIME_SHIFT = 4.0
STRONG, STRONG_SHIFT = 4.0, 5.5  # guidance weight from which they turn earlier still


def time_shift(guidance: object) -> float:
    """Returns the shift of a field with this guidance, a weight or a rule."""
    return STRONG_SHIFT if weight_of(guidance) >= STRONG else TIME_SHIFT


def weight_of(guidance: object) -> float:
    """Returns the largest weight of a guidance, which rules take as their first argument; 1 if it
    is not a number.
    """
    if isinstance(guidance, samplers.Rule) and guidance.written is not None:
        _, args, options = guidance.written
        return weight_of(next(iter((*args, *options.values())), None))
    if isinstance(guidance, Tensor | np.ndarray):
        return float(guidance.max()) if math.prod(guidance.shape) else 1.0
    return float(guidance) if isinstance(guidance, Real) else 1.0


def time_grid(
    solver: samplers.Solver,
    steps: int,
    grid: str | Tensor | Callable[[int], Tensor] | None = None,
    guidance: object = None,
) -> Tensor:
    """Returns times (steps + 1,) from 0 to 1: those given, or a rule's, by default the solver's.

    The solver's own depend on the guidance.
    """
    if grid is None:
        return laid(solver, steps, time_shift(guidance))
    grid = listed(grid)
    if isinstance(grid, Tensor):
        return grid
    if isinstance(grid, str):
        choice("no grid named", grid, samplers.GRIDS)
    elif not callable(grid):
        raise TypeError(
            f"grid is {grid!r:.80}; expected a name of samplers.GRIDS, times from 0 to 1, or a "
            "function of the number of steps"
        )
    if callable(grid):
        check_arguments(grid, "grid", "steps")
    made = listed((samplers.GRIDS[grid] if isinstance(grid, str) else grid)(steps))
    if not isinstance(made, Tensor):
        raise TypeError(f"the grid's function returned {type(made).__name__}; expected a tensor")
    return made


def listed(grid):
    """Returns times in a list or array as a tensor, and anything else as it is."""
    if not isinstance(grid, np.ndarray | list | tuple):
        return grid
    try:
        return torch.as_tensor(np.asarray(grid, dtype=np.float64))
    except (TypeError, ValueError):
        raise TypeError(f"grid is {grid!r:.80}; expected times from 0 to 1") from None
