"""ODE samplers for velocity fields: t = 0 is noise, t = 1 is data, v = data - noise."""

from samplers.core import SOLVERS, Solver, count, sample, solver, trajectory
from samplers.grids import (
    GRIDS,
    beta,
    cosine,
    grid,
    karras,
    logit_normal,
    power,
    quadratic,
    shifted,
    trigonometric,
    uniform,
)
from samplers.problems import PROBLEMS
from samplers.rungekutta import euler, heun, heun3, kutta3, midpoint, ralston, rk4

__all__ = [
    "GRIDS",
    "PROBLEMS",
    "SOLVERS",
    "Solver",
    "beta",
    "cosine",
    "count",
    "euler",
    "grid",
    "heun",
    "heun3",
    "karras",
    "kutta3",
    "logit_normal",
    "midpoint",
    "power",
    "quadratic",
    "ralston",
    "rk4",
    "sample",
    "shifted",
    "solver",
    "trajectory",
    "trigonometric",
    "uniform",
]
