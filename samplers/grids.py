"""Time grids from noise (0) to data (1): functions of the number of steps n, giving (n + 1,)."""

from collections.abc import Callable

import torch
from torch import Tensor

Grid = Callable[..., Tensor]
GRIDS: dict[str, Grid] = {}


def grid(place: Grid) -> Grid:
    """Registers a grid under its function's name."""
    GRIDS[place.__name__] = place
    return place


@grid
def uniform(n: int) -> Tensor:
    """t = i / n."""
    return torch.arange(n + 1, dtype=torch.float64) / n
