"""ODE samplers for velocity fields: t = 0 is noise, t = 1 is data, v = data - noise."""

from samplers.core import SOLVERS, Solver, count, sample, solver, trajectory
from samplers.grids import GRIDS, grid, uniform
from samplers.rungekutta import euler, heun, heun3, kutta3, midpoint, ralston, rk4

__all__ = [
    "GRIDS",
    "SOLVERS",
    "Solver",
    "count",
    "euler",
    "grid",
    "heun",
    "heun3",
    "kutta3",
    "midpoint",
    "ralston",
    "rk4",
    "sample",
    "solver",
    "trajectory",
    "uniform",
]
