"""What generating and editing share: their output, their times, their randomness."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers.utils import BaseOutput
from torch import Tensor

import samplers
from janusflow.models.janusflow.generation_adapters import Times
from janusflow.models.janusflow.modeling import JanusFlowModel

Seeds = torch.Generator | list[torch.Generator] | None


@dataclass
class JanusFlowOutput(BaseOutput):
    """`images`: PIL pictures, or an array or tensor; `calls`: network evaluations per picture;
    `skipped`: with `reuse`, how many of each picture's took over what the later blocks had added.
    """

    images: list | Tensor
    calls: int
    skipped: list[int] | None = None


def time_grid(
    solver: samplers.Solver, steps: int, grid: str | Tensor | Callable[[int], Tensor] | None = None
) -> Tensor:
    """Times (steps + 1,) from 0 to 1: those given, or by a rule, the solver's own unless named."""
    if isinstance(grid, Tensor):
        return grid
    grid = solver.grid if grid is None else grid
    if isinstance(grid, str) and grid not in samplers.GRIDS:
        raise ValueError(f"no grid named {grid!r}; choose one of {', '.join(samplers.GRIDS)}")
    return (samplers.GRIDS[grid] if isinstance(grid, str) else grid)(steps)


def row_times(t: Tensor, x: Tensor) -> Tensor:
    """The solver's time, one number on the CPU or one a sample, as float32 (B,) on x's device."""
    if t.numel() == 1:
        return torch.full((len(x),), float(t), device=x.device)
    return t.reshape(-1).to(x.device, torch.float32)


class KnownTimes:
    """A solver's times as the network takes them: those of a grid are made beforehand, in one
    product, and others as they come.
    """

    def __init__(self, model: JanusFlowModel, ts: Tensor | None):
        """`ts` (S,) in float32, on the network's device."""
        self._known: dict[float, Times] = {}
        if ts is not None and _reachable(model, ts.device):
            made = model.times(ts)
            self._known = {t: made[i : i + 1] for i, t in enumerate(ts.tolist())}

    def __call__(self, t: Tensor, x: Tensor) -> Tensor | Times:
        known = self._known.get(float(t.float())) if t.numel() == 1 else None
        return row_times(t, x) if known is None else known


def _reachable(model: JanusFlowModel, device: torch.device) -> bool:
    """Whether the weights of all blocks lie there now, and not where offloading fetches them."""
    parts = (model.vision_gen_enc_model, model.vision_gen_dec_model)
    return all(weight.device == device for part in parts for weight in part.parameters())


def seeded(solver: samplers.Solver, generator: Seeds) -> samplers.Solver:
    """A stochastic solver that draws from `generator`, unless it has a generator of its own."""
    own = inspect.signature(solver.path).parameters.get("generator")
    if generator is None or own is None or own.default is not None:
        return solver
    return solver.with_options(generator=generator)


def check(prompts: list[str], steps: int, count: int, output_type: str) -> None:
    """ValueError for an empty prompt, numbers below 1, or an output that there is not."""
    if not prompts or not all(isinstance(p, str) and p.strip() for p in prompts):
        raise ValueError(f"prompts are {prompts!r}; expected one text or several, none empty")
    for name, value in (("num_inference_steps", steps), ("num_images_per_prompt", count)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}; expected a whole number of at least 1")
    if output_type not in ("pil", "np", "pt", "latent"):
        raise ValueError(f"output_type is {output_type!r}; choose one of pil, np, pt, latent")
