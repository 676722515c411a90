"""The grid of a run: from a list of times, or from a number of network evaluations."""

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from samplers.grids import GRIDS, at_jumps, earlier, pieces
from samplers.solver_registry import SOLVERS, Solver

Times = Tensor | Iterable[float] | int
FARTHEST = 1e2  # time of a grid; diffusers counts training steps, from 1000 down
MOST = 10**6  # evaluations of a run
CLOSEST = 1e-12  # two times, relative to the largest
NO_TIMES = ("str", "bytes", "complex", "<U", "|S")


def times(
    ts: Times, solver: Solver, jumps: tuple[float, ...] = (), time_shift: float = 1.0
) -> Tensor:
    """Returns the grid for `ts`: float64 on the CPU, strictly monotonic.

    A number of evaluations becomes the solver's own grid, shifted if the solver `shifts`, with a
    time at each jump; if a restart costs evaluations, the grid has fewer steps. A list of times
    keeps its gradients. Raises ValueError if the solver does not support them.
    """
    calls = _whole(ts)
    if calls is not None:
        return _own_grid(calls, solver, jumps, time_shift)
    ts = _tensor(ts)
    _check_grid(ts.detach())
    if not (ts.requires_grad and torch.is_grad_enabled()):
        return ts.detach()
    if not solver.time_gradient:
        able = ", ".join(name for name, s in SOLVERS.items() if s.time_gradient)
        raise ValueError(
            f"{solver.name} carries no gradient to its times; pass ts.detach(), or choose {able}"
        )
    return ts


def _whole(ts: Any) -> int | None:
    """Returns ts as a number of evaluations, or None for a list of times."""
    if isinstance(ts, bool | float):
        raise TypeError(
            f"{ts!r} is not a number of evaluations; pass a whole number, or a list of times"
        )
    if getattr(ts, "ndim", 0):
        return None
    try:
        return operator.index(ts)
    except TypeError:
        return None


def _tensor(ts: Tensor | Iterable[float]) -> Tensor:
    """Returns times as float64 on the CPU, moved first, as Apple's GPUs have no float64."""
    if isinstance(ts, Tensor) and not ts.is_complex() and not ts.is_sparse and not ts.is_meta:
        return ts.cpu().double()
    try:
        if isinstance(ts, str | bytes | set | frozenset | dict | Tensor):
            raise TypeError("times have values and an order, and are real")
        values = list(ts)
        if any(_kind(t) in NO_TIMES for t in values):
            raise TypeError("texts are no numbers, and complex numbers are not in order")
        if any(isinstance(t, Tensor) for t in values):
            return torch.stack([torch.as_tensor(t).cpu().double() for t in values])
        return torch.tensor([float(t) for t in values], dtype=torch.float64, device="cpu")
    except (TypeError, ValueError):
        raise TypeError(
            f"the times are {ts!r:.80}; pass a number of evaluations, or a list of times"
        ) from None


def _kind(t: Any) -> str:
    """Returns the dtype of a tensor or numpy's scalar, or the type of anything else."""
    return str(getattr(t, "dtype", type(t).__name__)).removeprefix("torch.").rstrip("0123456789")


def _check_grid(ts: Tensor) -> None:
    if ts.ndim != 1 or len(ts) < 2:
        raise ValueError(
            f"the grid has shape {tuple(ts.shape)}; expected a list of at least two times"
        )
    if not bool((ts.abs() <= FARTHEST).all()):  # NaN included
        raise ValueError(
            f"the grid is not strictly monotonic within {-FARTHEST:g} to {FARTHEST:g}; give times "
            "with noise at 0 and data at 1"
        )
    h = ts.diff()
    if not (bool((h > 0).all()) or bool((h < 0).all())):
        i = int((h * (ts[-1] - ts[0]).sign() > 0).int().argmin())
        raise ValueError(
            f"a grid goes strictly up or strictly down; times {i} and {i + 1} are {ts[i]:.6g} and "
            f"{ts[i + 1]:.6g}"
        )
    if float(h.abs().min()) < CLOSEST * max(1.0, float(ts.abs().max())):
        raise ValueError(
            f"two times of the grid are {float(h.abs().min()):.3g} apart, which no float64 weight "
            "resolves; leave one out"
        )


def laid(
    solver: Solver, steps: int, time_shift: float = 1.0, jumps: tuple[float, ...] = ()
) -> Tensor:
    """Returns the solver's own grid of so many steps for a field with these attributes.

    Before a jump an accurate start gains little, so a grid that `shifts` then has a first step of
    full length.
    """
    told = {}
    if solver.shifts and time_shift != 1:
        told = {"shifted": True}
    elif solver.shifts and jumps:
        told = {"first": 1.0}
    ts = GRIDS[solver.grid](steps, **told) if isinstance(solver.grid, str) else solver.grid(steps)
    return earlier(ts, time_shift) if solver.shifts and time_shift != 1 else ts


def _own_grid(calls: int, solver: Solver, jumps: tuple[float, ...], time_shift: float) -> Tensor:
    if calls > MOST:
        raise ValueError(f"{calls} evaluations are more than a run takes; ask for at most {MOST}")
    n = solver.steps(calls)
    if not isinstance(solver.grid, str):
        return solver.grid(n)
    for steps in range(n, 0, -1):
        ts = at_jumps(laid(solver, steps, time_shift, jumps), jumps, solver.calls, solver.order)
        if sum(solver.cost(len(part) - 1) for part in pieces(ts, jumps)) <= calls:
            return ts
    return laid(solver, n, time_shift, jumps)
