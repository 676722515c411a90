"""Samplers for velocity fields: t = 0 is noise, t = 1 is data, v = data - noise.

    x = samplers.sample(v, noise, 16, "auto")

Solvers, grids and guidance rules are chosen by name; print `SOLVERS`, `GRIDS` or `RULES` to list
them.
"""

from typing import TYPE_CHECKING, Any

from samplers import _lazy, _moved, solvers
from samplers.benchmark.problems import PROBLEMS
from samplers.core import SOLVERS, Solver, count, sample, solver, trajectory
from samplers.editing import inpaint, interpolate, round_trip
from samplers.fields import batched, flow_map
from samplers.grids import GRIDS, grid
from samplers.guidance import RULES, guide, pair, rule
from samplers.likelihood import log_likelihood
from samplers.log_prob import rollout, step_log_prob
from samplers.search.pilot import pilot
from samplers.solvers.linear_multistep import learned

if TYPE_CHECKING:  # what is imported when it is first used, for completion
    from samplers.comparison import Comparison as Comparison
    from samplers.comparison import compare as compare
    from samplers.editing import RoundTrip as RoundTrip
    from samplers.editing import controlled as controlled
    from samplers.editing import flow_edit as flow_edit
    from samplers.editing import img2img_timesteps as img2img_timesteps
    from samplers.flow_maps import integrated as integrated
    from samplers.guidance import Guided as Guided
    from samplers.guidance import Pair as Pair
    from samplers.guidance import Rule as Rule
    from samplers.guidance import apg as apg
    from samplers.guidance import autoguidance as autoguidance
    from samplers.guidance import batched_pair as batched_pair
    from samplers.guidance import cfg as cfg
    from samplers.guidance import cfg_plus_plus as cfg_plus_plus
    from samplers.guidance import cfg_rescale as cfg_rescale
    from samplers.guidance import cfg_zero_star as cfg_zero_star
    from samplers.guidance import guidance_interval as guidance_interval
    from samplers.inverse_problems import posterior as posterior
    from samplers.likelihood import LogLikelihood as LogLikelihood
    from samplers.log_prob import Rollout as Rollout
    from samplers.parallel import picard as picard
    from samplers.search.ld3 import fit_times as fit_times
    from samplers.search.pilot import PilotGrid as PilotGrid
    from samplers.solvers.linear_multistep import Learned as Learned

__all__ = [
    "GRIDS",
    "PROBLEMS",
    "RULES",
    "SOLVERS",
    "Solver",
    "batched",
    "compare",
    "controlled",
    "count",
    "fit_times",
    "flow_map",
    "grid",
    "guide",
    "inpaint",
    "interpolate",
    "learned",
    "log_likelihood",
    "pair",
    "picard",
    "pilot",
    "posterior",
    "rollout",
    "round_trip",
    "rule",
    "sample",
    "solver",
    "step_log_prob",
    "trajectory",
]

solvers.register()
_moved.install()


def __getattr__(name: str) -> Any:
    return _lazy.find(name, globals())


def __dir__() -> list[str]:
    return sorted({*__all__, *_lazy.PLACE, *_lazy.MODULES})
