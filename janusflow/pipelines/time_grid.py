"""The times of a sampling run, from a name, a rule or a list."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

import samplers
from samplers.core import laid

# guided, these models turn in the first tenth of the path: `auto` moves its grid there
TIME_SHIFT = 4.0


def time_grid(
    solver: samplers.Solver, steps: int, grid: str | Tensor | Callable[[int], Tensor] | None = None
) -> Tensor:
    """Returns times (steps + 1,) from 0 to 1: those given, or a rule's, by default the solver's."""
    if grid is None:
        return laid(solver, steps, TIME_SHIFT)
    if isinstance(grid, np.ndarray | list | tuple):
        grid = torch.as_tensor(np.asarray(grid, dtype=np.float64))
    if isinstance(grid, Tensor):
        return grid
    if isinstance(grid, str) and grid not in samplers.GRIDS:
        raise ValueError(f"no grid named {grid!r}; choose one of {', '.join(samplers.GRIDS)}")
    if not callable(grid) and not isinstance(grid, str):
        raise TypeError(
            f"grid is {grid!r:.80}; expected a name of samplers.GRIDS, times from 0 to 1, or a "
            "function of the number of steps"
        )
    made = (samplers.GRIDS[grid] if isinstance(grid, str) else grid)(steps)
    if isinstance(made, np.ndarray | list | tuple):
        made = torch.as_tensor(np.asarray(made, dtype=np.float64))
    if not isinstance(made, Tensor):
        raise TypeError(f"the grid's function returned {type(made).__name__}; expected a tensor")
    return made
