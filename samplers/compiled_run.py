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
from samplers.solvers.caution import doubt, looks, minus, overshot, turn, weighed
from samplers.solvers.leaning import lean, leans
from samplers.solvers.linear_multistep import linearize
from samplers.solvers.trust import trusts, turned

SMALL = 1e-13  # a weight that is rounding


@torch.compiler.assume_constant_result
def program(name: str, ts: Any, options: tuple, time_shift: float) -> tuple:
    """Returns (grid, times of the evaluations, steps, whether `lean` acts, doubts, undone, raised).

    A step is the state's factor and (j, weight of v_j). A doubt holds the weights that turn
    a prediction into Euler's, and those of the second difference. `undone` holds the weights that
    take the first correction back, and those of its size; None where it stays. `raised` holds what
    the longest rules add to the weights of every step but the first.
    """
    solver = find(name, **dict(options))
    if not solver.fixed:
        raise ValueError(
            f"{name} cannot run under torch.compile, because its steps depend on the state or draw "
            "noise; compile only the velocity v, or choose a solver with fixed steps such as heun"
        )
    grid = times(ts if isinstance(ts, int) else list(ts), solver, time_shift=time_shift)
    nodes, weights = linearize(solver, grid, time_shift)
    rows = plan(tuple(grid.tolist()), time_shift != 1)
    steps, ts = tuple(_steps(weights.tolist())), tuple(grid.tolist())
    adapts = solver.linear is not solver
    seconds = looks(ts) if adapts else ()
    doubts = (
        tuple(
            (minus((b - a,), predict), second)
            for (a, b), (_, predict), second in zip(pairwise(ts), rows, seconds, strict=True)
        )
        if seconds
        else ()
    )
    leaning = adapts and leans(grid)
    size = overshot(ts, rows[1][0]) if adapts and len(ts) > 2 else ()
    undone = (minus((0.0, ts[1] - ts[0]), rows[1][0]), size) if size else None
    trusting = trusts(ts) if adapts and time_shift == 1 else ()
    raised = tuple(
        step._replace(correct=minus(step.correct, correct), predict=minus(step.predict, predict))
        for step, (correct, predict) in zip(trusting, rows, strict=False)
    )
    return ts, tuple(nodes[:-1].tolist()), steps, leaning, doubts, undone, raised


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
    shift = time_shift_of(v)
    made, shifted = program(solver, ts, tuple(options.items()), shift), shift != 1
    grid, nodes, steps, leaning, doubts, undone, raised = made
    noise, ahead, ks, doubted, facing, share = x, x, [], None, None, None
    for i, (t, (ratio, terms)) in enumerate(zip(nodes, steps, strict=True)):
        t = torch.full((), t, dtype=torch.float64, device="cpu")
        ks.append(fitting(v(ahead, t), x))
        known = ks[::-1]
        if raised and not i:
            facing = turned(ks[0], noise)
        elif raised and raised[i].small:
            share = facing * (1 - doubt(known, raised[i].small))
        if doubts and doubts[i][1]:
            power = turn(known, doubts[i][1])
            doubted = power / (1 + power)
            share = facing / (1 + raised[i].scale * power) if raised else None
        x = x if ratio == 1 else ratio * x
        for j, w in terms:
            x = torch.add(x, ks[j], alpha=w)
        plain = x
        if undone and i == 1:
            change, size = undone
            x = torch.addcmul(x, doubt(known, size), weighed(change, known))
        if share is not None:
            x = torch.lerp(x, plain + weighed(raised[i].correct, known), share)
        ahead = lean(x, noise, known, grid, shifted) if leaning else x
        if doubted is not None:
            ahead = torch.addcmul(x, doubted, weighed(doubts[i][0], known))
        if share is not None:
            ahead = torch.lerp(ahead, x + weighed(raised[i].predict, known), share)
    return ahead
