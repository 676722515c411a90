"""ODE samplers for velocity fields: t = 0 is noise, t = 1 is data, v = data - noise."""

from samplers import adaptive as adaptive
from samplers.core import SOLVERS, Solver, count, sample, solver, trajectory
from samplers.grids import GRIDS, grid, uniform
from samplers.guidance import (
    RULES,
    Pair,
    Rule,
    autoguidance,
    cfg,
    cfg_plus_plus,
    guide,
    pair,
    projected,
    rescaled,
    rule,
    stacked,
    within,
    zero_star,
)
from samplers.inversion import RoundTrip, between, fireflow, masked, partway, rf_solver, round_trip
from samplers.likelihood import LogLikelihood, log_likelihood
from samplers.persample import bosh3_each, dopri5_each
from samplers.rungekutta import euler, heun, heun3, kutta3, midpoint, ralston, rk4
from samplers.stochastic import RATES, churn, euler_maruyama, overshoot, rate, sde_heun

__all__ = [
    "GRIDS",
    "RATES",
    "RULES",
    "SOLVERS",
    "LogLikelihood",
    "Pair",
    "RoundTrip",
    "Rule",
    "Solver",
    "autoguidance",
    "between",
    "bosh3_each",
    "cfg",
    "cfg_plus_plus",
    "churn",
    "count",
    "dopri5_each",
    "euler",
    "euler_maruyama",
    "fireflow",
    "grid",
    "guide",
    "heun",
    "heun3",
    "kutta3",
    "log_likelihood",
    "masked",
    "midpoint",
    "overshoot",
    "pair",
    "partway",
    "projected",
    "ralston",
    "rate",
    "rescaled",
    "rf_solver",
    "rk4",
    "round_trip",
    "rule",
    "sample",
    "sde_heun",
    "solver",
    "stacked",
    "trajectory",
    "uniform",
    "within",
    "zero_star",
]
