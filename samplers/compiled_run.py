"""A whole sampling run as one graph, for torch.compile(fullgraph=True), torch.export and make_fx.

A solver on a known grid is a list of times and weights (see `solvers.linear_multistep.linearize`).
They are computed while the graph is traced; the graph itself contains only evaluations of v and
weighted sums. Each state is written as the one before it plus the velocities of their difference.
"""

from itertools import pairwise
from operator import index
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from samplers.fields import Velocity, fitting, grid_dependent, jumps_of, time_shift_of
from samplers.run_grid import times
from samplers.solver_registry import Solver, find
from samplers.solvers import auto
from samplers.solvers.linear_multistep import linearize
from samplers.states import Layout

SMALL = 1e-13  # a weight that is rounding


@torch.compiler.assume_constant_result
def program(name: str, ts: Any, options: tuple, time_shift: float) -> tuple:
    """Returns (times of the evaluations and the end, steps, None or what `auto` follows where it
    adapts).

    A step is the state's factor and (j, weight of v_j).
    """
    solver = find(name, **dict(options))
    if not solver.fixed:
        raise ValueError(
            f"{name} cannot run under torch.compile or another trace, because its steps depend on "
            "the state or draw noise; compile only the velocity v, or choose a solver with fixed "
            "steps such as heun"
        )
    with _disable_current_modes():  # the grid has values, while the state of a trace has none
        return _program(solver, ts, time_shift)


def _program(solver: Solver, ts: Any, time_shift: float) -> tuple:
    grid = times(ts if isinstance(ts, int) else list(ts), solver, time_shift=time_shift)
    if solver.linear is not solver and len(grid) - 1 <= auto.MANY_STEPS:
        run = auto.program(tuple(grid.tolist()), time_shift != 1)
        return run.times, (), run._replace(tables=run.tables.tolist())
    nodes, weights = linearize(solver, grid, time_shift)
    return (*nodes[:-1].tolist(), float(grid[-1])), tuple(_steps(weights.tolist())), None


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

    Raises an error for what cannot be a constant of the graph: times in a tensor, and fields that
    jump or depend on the grid.
    """
    if not isinstance(x, Tensor):
        state, layout = Layout.of(x)
        return layout.unpack(run(layout.field(v), state, solver, ts, options))
    if isinstance(ts, Tensor):
        raise TypeError(
            "under torch.compile a run takes a number of evaluations or a list of times; for times "
            "in a tensor compile only the velocity v"
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
    shift = time_shift_of(v)
    nodes, steps, adapting = program(solver, ts, tuple(options.items()), shift)
    if not x.numel():  # no sample, no call
        return x
    *nodes, last = [torch.full((), t, dtype=torch.float64, device="cpu") for t in nodes]
    if adapting:
        tables = torch.tensor(adapting.tables, dtype=x.dtype, device="cpu").to(x.device)
        *_, end = auto.follow(lambda y, t: fitting(v(y, t), y), x, nodes, adapting, tables)
    else:
        end = _walked(v, x, nodes, steps)
    project = getattr(v, "project", None)
    return end if project is None else project(end, last)


def _walked(v: Velocity, x: Tensor, nodes: list[Tensor], steps: tuple) -> Tensor:
    ks = []
    for t, (ratio, terms) in zip(nodes, steps, strict=True):
        ks.append(fitting(v(x, t), x))
        x = x if ratio == 1 else ratio * x
        for j, w in terms:
            x = torch.add(x, ks[j], alpha=w)
    return x
