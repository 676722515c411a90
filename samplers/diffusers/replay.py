"""A solver driven from outside, one velocity at a time, from any of its calls on."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from samplers.core import SOLVERS, Path, Solver, Velocity, advance

NEAR = 1e-9  # two times that are one
FALLBACK = "abm3"  # calls v at each time of any grid once


class Wanted(Exception):
    """Stops a replay at the first velocity that is not known yet; carries the state it is for."""


def call_times(solver: Solver, ts: Tensor) -> list[float]:
    """The times at which a solver calls v on a grid, found by running it on zeros."""
    times = []

    def record(x: Tensor, t: Tensor) -> Tensor:
        times.append(float(t))
        return torch.zeros_like(x)

    for _ in solver.path(record, torch.zeros(1, 1), ts):
        pass
    return times


def replay(solver: Solver, noise: Tensor, ts: Tensor, velocities: list[Tensor]) -> Tensor:
    """The state at which a solver wants its next velocity, or where it ends if it wants none.

    A solver is a pure function of the velocities it is given, so instead of suspending it between
    a pipeline's steps (which would take a thread or a greenlet) it is run again on the recorded
    ones: N(N+1)/2 updates of the state in all, nothing beside N calls of a network.
    """
    known = iter(velocities)

    def v(x: Tensor, t: Tensor) -> Tensor:
        for velocity in known:
            return velocity
        raise Wanted(x, t)

    try:
        *_, x = solver.path(v, noise, ts)
    except Wanted as wanted:
        return wanted.args[0]
    return x


def resumed(solver: Solver, ts: Tensor, first: int) -> tuple[Solver, Tensor]:
    """(solver, grid) whose calls are those of `solver` on ts from number `first` on, to the time.

    That is the same solver on what is left of the grid, where a step of it begins there. Inside a
    step, Euler's rule goes to where the next one begins. A rule whose start takes other calls than
    its middle gives way to `abm3`, which takes every later time once.
    Raises ValueError for a stochastic rule of which no step begins there.
    """
    calls = call_times(solver, ts)[first:]
    for lead in range(min(solver.calls, len(calls))):
        ahead = ts[ts > calls[lead] + NEAR]
        rest = torch.cat([torch.tensor(calls[lead : lead + 1], dtype=ts.dtype), ahead])
        if agree(solver, rest, calls[lead:]):
            return led(solver, calls[:lead]), rest
    if solver.stochastic:
        raise ValueError(
            f"{solver.name} cannot begin at its call {first + 1}, t = {calls[0]:g}; choose another "
            "strength or another solver, such as euler_maruyama"
        )
    rest = torch.tensor([*calls, float(ts[-1])], dtype=ts.dtype)
    rising = (rest.diff() > NEAR).tolist()
    lead = max((i + 1 for i, up in enumerate(rising) if not up), default=0)
    return led(SOLVERS[FALLBACK], calls[:lead]), rest[lead:]


def agree(solver: Solver, ts: Tensor, calls: list[float]) -> bool:
    """Whether the solver calls v on this grid at these times."""
    if len(ts) < 2:
        return False
    try:
        own = call_times(solver, ts)
    except ValueError:  # a grid that it was not made for
        return False
    near = (abs(a - b) < NEAR for a, b in zip(own, calls, strict=False))
    return len(own) == len(calls) and all(near)


def led(solver: Solver, lead: list[float]) -> Solver:
    """The solver after steps of Euler's rule through the times `lead` to the grid's beginning."""
    if not lead:
        return solver

    def path(v: Velocity, x: Tensor, ts: Tensor) -> Path:
        for t, s in pairwise([*lead, float(ts[0])]):
            x = advance(x, (s - t, v(x, torch.tensor(t, dtype=torch.float64))))
        if len(ts) > 1:
            yield from solver.path(v, x, ts)
        else:
            yield x

    return replace(solver, path=path)
