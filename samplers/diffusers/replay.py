"""Runs a solver from outside, one velocity at a time, starting at any of its evaluations."""

import inspect
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from samplers.core import SOLVERS, Path, Solver, Velocity, advance

NEAR = 1e-9  # two times that are one
FALLBACK = "abm3"  # calls v at each time of any grid once


class UnknownVelocity(Exception):
    """Raised at the first velocity that is not known yet; it carries the state to evaluate."""


def call_times(solver: Solver, ts: Tensor) -> list[float]:
    """Returns the times at which a solver evaluates v on a grid, found by running it on zeros."""
    times = []

    def record(x: Tensor, t: Tensor) -> Tensor:
        times.append(float(t))
        return torch.zeros_like(x)

    for _ in solver.path(record, torch.zeros(1, 1, device="cpu"), ts):
        pass
    return times


def replay(solver: Solver, noise: Tensor, ts: Tensor, velocities: list[Tensor]) -> Tensor:
    """Returns the state at which a solver needs its next velocity, or its final state.

    A solver is a pure function of the velocities, so instead of suspending it between a pipeline's
    steps (which would need a thread or a greenlet) it is run again with the recorded ones. This
    takes N(N+1)/2 state updates in all, which is little beside N network evaluations.
    """
    known = iter(velocities)

    def v(x: Tensor, t: Tensor) -> Tensor:
        for velocity in known:
            return velocity
        raise UnknownVelocity(x, t)

    try:
        *_, x = solver.path(v, noise, ts)
    except UnknownVelocity as wanted:
        return wanted.args[0]
    return x


def resumed(solver: Solver, ts: Tensor, first: int) -> tuple[Solver, Tensor]:
    """Returns (solver, grid) that continue `solver` on ts at its evaluation number `first`.

    They evaluate v at the same times as the solver from there on:

    - the same solver on the rest of the grid, if a step starts at this evaluation,
    - after an Euler step to the next start of a step, if this evaluation is within a step,
    - `abm3`, which evaluates each later time once, if the solver starts differently on a new grid.

    Raises ValueError for a stochastic solver that has no step starting there.
    """
    calls = call_times(solver, ts)[first:]
    for lead in range(min(solver.calls, len(calls))):
        ahead = ts[ts > calls[lead] + NEAR]
        rest = torch.cat(
            [torch.tensor(calls[lead : lead + 1], dtype=ts.dtype, device="cpu"), ahead]
        )
        if agree(solver, rest, calls[lead:]):
            return led(solver, calls[:lead]), rest
    if solver.stochastic:
        raise ValueError(
            f"{solver.name} cannot start at its evaluation {first + 1}, t = {calls[0]:g}; choose "
            "another strength or another solver, such as euler_maruyama"
        )
    rest = torch.tensor([*calls, float(ts[-1])], dtype=ts.dtype, device="cpu")
    rising = (rest.diff() > NEAR).tolist()
    lead = max((i + 1 for i, up in enumerate(rising) if not up), default=0)
    return led(SOLVERS[FALLBACK], calls[:lead]), rest[lead:]


def agree(solver: Solver, ts: Tensor, calls: list[float]) -> bool:
    """Returns whether the solver evaluates v on this grid at these times."""
    if len(ts) < 2:
        return False
    try:
        own = call_times(solver, ts)
    except ValueError:  # a grid that it was not made for
        return False
    near = (abs(a - b) < NEAR for a, b in zip(own, calls, strict=False))
    return len(own) == len(calls) and all(near)


def led(solver: Solver, lead: list[float]) -> Solver:
    """Returns the solver preceded by Euler steps through `lead` to the grid's start."""
    return replace(solver, path=_Led(solver, lead)) if lead else solver


@dataclass(frozen=True)
class _Led:
    """A path that begins with Euler steps; a class, so that it pickles."""

    solver: Solver
    lead: list[float]

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.solver.path)

    def __call__(self, v: Velocity, x: Tensor, ts: Tensor, **options: Any) -> Path:
        for t, s in pairwise([*self.lead, float(ts[0])]):
            x = advance(x, (s - t, v(x, torch.tensor(t, dtype=torch.float64, device="cpu"))))
        if len(ts) > 1:
            yield from self.solver.path(v, x, ts, **options)
        else:
            yield x
