"""A whole sampling run as one graph, for torch.compile(fullgraph=True).

A solver on a known grid is a list of times and weights (see `solvers.linear_multistep.linearize`).
They are computed while the graph is traced; the graph itself contains only evaluations of v and
weighted sums. Each state is written as the one before it plus the velocities of their difference.
"""

from itertools import pairwise
from operator import index
from typing import Any

import torch
from torch import Tensor

from samplers.fields import Velocity, fitting, grid_dependent, jumps_of, time_shift_of
from samplers.run_grid import times
from samplers.solver_registry import find
from samplers.solvers.auto import plan
from samplers.solvers.caution import doubt, looks, minus, overshot, weighed
from samplers.solvers.leaning import lean, leans
from samplers.solvers.linear_multistep import linearize

SMALL = 1e-13  # a weight that is rounding


@torch.compiler.assume_constant_result
def program(name: str, ts: Any, options: tuple, time_shift: float) -> tuple:
    """Returns (grid, times of the evaluations, steps, whether `lean` acts, doubts, undone).

    A step is the state's factor and (j, weight of v_j). A doubt holds the weights that turn
    a prediction into Euler's, and those of the second difference. `undone` holds the weights that
    take the first correction back, and those of its size; None where it stays.
    """
    solver = find(name, **dict(options))
    if not solver.fixed:
        raise ValueError(
            f"{name} cannot run under torch.compile, because its steps depend on the state or draw "
            "noise; compile only the velocity v, or choose a solver with fixed steps such as heun"
        )
    grid = times(ts if isinstance(ts, int) else list(ts), solver, time_shift=time_shift)
    nodes, weights = linearize(solver, grid)
    steps, ts = tuple(_steps(weights.tolist())), tuple(grid.tolist())
    adapts = solver.linear is not solver
    seconds = looks(ts) if adapts else ()
    doubts = (
        tuple(
            (minus((b - a,), predict), second)
            for (a, b), (_, predict), second in zip(pairwise(ts), plan(ts), seconds, strict=True)
        )
        if seconds
        else ()
    )
    leaning = adapts and leans(grid)
    size = overshot(ts, plan(ts)[1][0]) if adapts and len(ts) > 2 else ()
    undone = (minus((0.0, ts[1] - ts[0]), plan(ts)[1][0]), size) if size else None
    return ts, tuple(nodes[:-1].tolist()), steps, leaning, doubts, undone


def _steps(rows: list[list[float]]) -> list[tuple]:
    """Converts rows of weights to steps from one state to the next."""
    made = []
    for before, row in pairwise(rows):
        ratio = row[0] / before[0] if before[0] else 0.0
        gaps = [w - ratio * b for b, w in zip(before[1:], row[1:], strict=True)]
        kept = tuple((j, gap) for j, gap in enumerate(gaps) if abs(gap) > SMALL)
        made.append((ratio, kept))
    return made


def run(v: Velocity, x: Tensor, solver: Any, ts: Any, options: dict[str, Any]) -> Tensor:
    """Returns the final state, traced without a graph break.

    Raises an error for what cannot be a constant of the graph: times in a tensor, fields that jump
    or depend on the grid, and states of several tensors.
    """
    if isinstance(ts, Tensor) or not isinstance(x, Tensor):
        raise TypeError(
            "under torch.compile a run takes one tensor as its state, and a number of evaluations "
            "or a list of times; for other arguments compile only the velocity v"
        )
    if jumps_of(v) or grid_dependent(v):
        raise ValueError(
            "this guided field depends on the run's time grid, which torch.compile does not pass "
            "on; compile only the velocity v"
        )
    if not isinstance(solver, str):
        solver, options = solver.name, {**getattr(solver.path, "keywords", {}), **options}
    ts = index(ts) if isinstance(ts, int) else ts  # a constant, though it may change between graphs
    x = x.float() if x.dtype.itemsize < 4 else x
    made = program(solver, ts, tuple(options.items()), time_shift_of(v))
    grid, nodes, steps, leaning, doubts, undone = made
    noise, ahead, ks, doubted = x, x, [], None
    for i, (t, (ratio, terms)) in enumerate(zip(nodes, steps, strict=True)):
        t = torch.full((), t, dtype=torch.float64, device="cpu")
        ks.append(fitting(v(ahead, t), x))
        x = x if ratio == 1 else ratio * x
        for j, w in terms:
            x = torch.add(x, ks[j], alpha=w)
        if undone and i == 1:
            change, size = undone
            x = torch.addcmul(x, doubt(ks[::-1], size), weighed(change, ks[::-1]))
        ahead = lean(x, noise, ks[::-1], grid) if leaning else x
        if doubts:
            lower, second = doubts[i]
            doubted = doubt(ks[::-1], second) if second else doubted
            ahead = x if doubted is None else torch.addcmul(x, doubted, weighed(lower, ks[::-1]))
    return ahead
