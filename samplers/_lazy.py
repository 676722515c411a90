"""Names of `samplers` that are imported on first use: submodules, classes and old names."""

from importlib import import_module
from typing import Any

from samplers import _moved
from samplers.registry import renamed

MODULES = {  # parts that import diffusers, or are programs
    "benchmark": "benchmark",
    "diffusers_bridge": "diffusers",
    "learn": "search.learn",
    "measure": "benchmark.measure",
    "peers": "benchmark.peers",
    "rectify": "rectify",
    "report": "benchmark.summary",
}
PLACES = {  # a name of the package, and the module that it stands in
    "guidance": "Guided Pair Rule apg autoguidance batched_pair cfg cfg_plus_plus cfg_rescale "
    "cfg_zero_star guidance_interval",
    "grids": "beta cosine karras logit_normal power quadratic shifted trigonometric uniform",
    "editing": "RoundTrip controlled flow_edit img2img_timesteps",
    "comparison": "Comparison compare",
    "flow_maps": "integrated",
    "inverse_problems": "posterior",
    "likelihood": "LogLikelihood",
    "log_prob": "Rollout",
    "parallel": "picard",
    "search.ld3": "fit_times",
    "search.pilot": "PilotGrid",
    "solvers.auto": "tilted",
    "solvers.linear_multistep": "Learned",
    "solvers.stochastic": "RATES rate",
}
SOLVERS = {  # the functions of solvers, which go by name now
    "solvers.runge_kutta": "euler heun heun3 kutta3 midpoint ralston rk4",
    "solvers.multistep": "ab2 ab3 ab4 abm abm2 abm3 abm4 abm5",
    "solvers.exponential": "deis dpmpp_2m dpmpp_3m exponential exponential3 unipc2 unipc3",
    "solvers.stochastic": "churn euler_maruyama overshoot sde_heun",
    "solvers.inversion": "fireflow rf_solver",
    "solvers.auto": "auto",
    "solvers.adaptive_per_sample": "bosh3_per_sample dopri5_per_sample",
}
OLD = {
    "within": "guidance_interval",
    "rescaled": "cfg_rescale",
    "zero_star": "cfg_zero_star",
    "projected": "apg",
    "stacked": "batched_pair",
    "between": "interpolate",
    "partway": "img2img_timesteps",
    "masked": "inpaint",
    "dopri5_each": "dopri5_per_sample",
    "bosh3_each": "bosh3_per_sample",
}


def _where(table: dict[str, str]) -> dict[str, str]:
    return {name: module for module, names in table.items() for name in names.split()}


PLACE, SOLVER = _where(PLACES), _where(SOLVERS)


def find(name: str, package: dict[str, Any]) -> Any:
    """Returns a lazily imported name of `samplers`. Raises AttributeError for others."""
    if name in OLD:
        name = renamed(name, OLD[name], stacklevel=4)
        return package[name] if name in package else find(name, package)
    if name in SOLVER:
        renamed(f"samplers.{name}", f'the solver "{name}", passed by its name', stacklevel=4)
        return getattr(import_module(f"samplers.{SOLVER[name]}"), name)
    if name in PLACE:
        return getattr(import_module(f"samplers.{PLACE[name]}"), name)
    if name in MODULES:
        return import_module(f"samplers.{MODULES[name]}")
    if f"samplers.{name}" in _moved.MOVED:
        return import_module(_moved.MOVED[f"samplers.{name}"])
    raise AttributeError(f"module 'samplers' has no attribute {name!r}")
