"""The times of a run, from a name, a rule or a list."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

import samplers


def time_grid(
    solver: samplers.Solver, steps: int, grid: str | Tensor | Callable[[int], Tensor] | None = None
) -> Tensor:
    """Times (steps + 1,) from 0 to 1: those given, or by a rule, the solver's own unless named."""
    if isinstance(grid, np.ndarray | list | tuple):
        grid = torch.as_tensor(np.asarray(grid, dtype=np.float64))
    if isinstance(grid, Tensor):
        return grid
    grid = solver.grid if grid is None else grid
    if isinstance(grid, str) and grid not in samplers.GRIDS:
        raise ValueError(f"no grid named {grid!r}; choose one of {', '.join(samplers.GRIDS)}")
    return (samplers.GRIDS[grid] if isinstance(grid, str) else grid)(steps)
