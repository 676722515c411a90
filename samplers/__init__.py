"""ODE samplers for velocity fields: t = 0 is noise, t = 1 is data, v = data - noise."""

import importlib

from samplers import _moved
from samplers.benchmark.problems import PROBLEMS
from samplers.core import SOLVERS, Solver, count, sample, solver, trajectory
from samplers.fields import batched, flow_map
from samplers.flow_maps import integrated
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
from samplers.likelihood import LogLikelihood, log_likelihood
from samplers.log_prob import Rollout, rollout, step_log_prob
from samplers.search.pilot import PilotGrid, pilot
from samplers.solvers import adaptive as adaptive
from samplers.solvers.adaptive_per_sample import bosh3_each, dopri5_each
from samplers.solvers.auto import auto, tilted
from samplers.solvers.exponential import (
    deis,
    dpmpp_2m,
    dpmpp_3m,
    exponential,
    exponential3,
    unipc2,
    unipc3,
)
from samplers.solvers.inversion import (
    RoundTrip,
    between,
    fireflow,
    masked,
    partway,
    rf_solver,
    round_trip,
)
from samplers.solvers.jump import consistency, jump, restart
from samplers.solvers.linear_multistep import Learned, learned
from samplers.solvers.multistep import ab2, ab3, ab4, abm, abm2, abm3, abm4, abm5
from samplers.solvers.runge_kutta import euler, heun, heun3, kutta3, midpoint, ralston, rk4
from samplers.solvers.stochastic import (
    RATES,
    churn,
    cps,
    euler_maruyama,
    flow_grpo,
    overshoot,
    rate,
    sde_heun,
)

__all__ = [
    "GRIDS",
    "PROBLEMS",
    "RATES",
    "RULES",
    "SOLVERS",
    "Learned",
    "LogLikelihood",
    "Pair",
    "PilotGrid",
    "Rollout",
    "RoundTrip",
    "Rule",
    "Solver",
    "ab2",
    "ab3",
    "ab4",
    "abm",
    "abm2",
    "abm3",
    "abm4",
    "abm5",
    "auto",
    "autoguidance",
    "batched",
    "beta",
    "between",
    "bosh3_each",
    "cfg",
    "cfg_plus_plus",
    "churn",
    "consistency",
    "cosine",
    "count",
    "cps",
    "deis",
    "dopri5_each",
    "dpmpp_2m",
    "dpmpp_3m",
    "euler",
    "euler_maruyama",
    "exponential",
    "exponential3",
    "fireflow",
    "flow_grpo",
    "flow_map",
    "grid",
    "guide",
    "heun",
    "heun3",
    "integrated",
    "jump",
    "karras",
    "kutta3",
    "learned",
    "log_likelihood",
    "logit_normal",
    "masked",
    "midpoint",
    "overshoot",
    "pair",
    "partway",
    "pilot",
    "power",
    "projected",
    "quadratic",
    "ralston",
    "rate",
    "rescaled",
    "restart",
    "rf_solver",
    "rk4",
    "rollout",
    "round_trip",
    "rule",
    "sample",
    "sde_heun",
    "shifted",
    "solver",
    "stacked",
    "step_log_prob",
    "tilted",
    "trajectory",
    "trigonometric",
    "uniform",
    "unipc2",
    "unipc3",
    "within",
    "zero_star",
]

LAZY = {
    "benchmark": "benchmark",
    "diffusers_bridge": "diffusers",
    "learn": "search.learn",
    "measure": "benchmark.measure",
    "peers": "benchmark.peers",
    "report": "benchmark.summary",
}

_moved.install()


def __getattr__(name: str):
    """The parts that import diffusers, or are programs, when they are first asked for."""
    if name in LAZY:
        return importlib.import_module(f"samplers.{LAZY[name]}")
    if f"samplers.{name}" in _moved.MOVED:
        return importlib.import_module(_moved.MOVED[f"samplers.{name}"])
    raise AttributeError(f"module 'samplers' has no attribute {name!r}")
