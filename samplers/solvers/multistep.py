"""Multistep rules in the velocity itself: one evaluation per step, on any grid."""

from torch import Tensor

from samplers.solver_registry import Path, Velocity, solver
from samplers.solvers.adams import Scheme, adams


@solver(order=2)
def ab2(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """Adams-Bashforth through the last two velocities (Bashforth and Adams 1883)."""
    return adams(v, x, ts, Scheme(2))


@solver(order=3)
def ab3(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """Adams-Bashforth through three velocities."""
    return adams(v, x, ts, Scheme(3))


@solver(order=4, extra=Scheme(4).extra)
def ab4(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """Adams-Bashforth through four velocities; its start takes one more evaluation."""
    return adams(v, x, ts, Scheme(4))


@solver(order=2)
def abm2(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """An Euler step, corrected by the trapezoid rule once the next velocity is known."""
    return adams(v, x, ts, Scheme(1, 2))


@solver(order=3)
def abm3(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """Adams-Bashforth through two velocities, Adams-Moulton through three (PEC)."""
    return adams(v, x, ts, Scheme(2, 3))


@solver(order=4, extra=Scheme(3, 4).extra)
def abm4(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """Predictor through three velocities, corrector through four; the start takes one more."""
    return adams(v, x, ts, Scheme(3, 4))


@solver(order=5, extra=Scheme(4, 5).extra)
def abm5(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """Predictor through four velocities, corrector through five; the start takes three more."""
    return adams(v, x, ts, Scheme(4, 5))


def points(steps: int) -> Scheme:
    """Returns the order for a number of steps: 2 below 6 steps, 3 below 12, then 4."""
    predictor = 1 + sum(steps >= n for n in (6, 12))
    return Scheme(predictor, predictor + 1)


@solver(order=4, extra=lambda steps: points(steps).extra(steps))
def abm(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """Predict, evaluate, correct, with the order chosen from the number of steps."""
    return adams(v, x, ts, points(len(ts) - 1))
