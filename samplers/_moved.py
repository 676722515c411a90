"""Import paths of release 0.1, which work for one more release: they give the same modules, with a
warning.
"""

import sys
import warnings
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

MOVED = {
    "samplers.rungekutta": "samplers.solvers.runge_kutta",
    "samplers.multistep": "samplers.solvers.multistep",
    "samplers.exponential": "samplers.solvers.exponential",
    "samplers.adams": "samplers.solvers.adams",
    "samplers.adaptive": "samplers.solvers.adaptive",
    "samplers.stochastic": "samplers.solvers.stochastic",
    "samplers.persample": "samplers.solvers.adaptive_per_sample",
    "samplers.linear": "samplers.solvers.linear_multistep",
    "samplers.inversion": "samplers.solvers.inversion",
    "samplers.learn": "samplers.search.learn",
    "samplers.diffusers_bridge": "samplers.diffusers",
    "samplers.measure": "samplers.benchmark.measure",
    "samplers.peers": "samplers.benchmark.peers",
    "samplers.problems": "samplers.benchmark.problems",
    "samplers.report": "samplers.benchmark.summary",
    "samplers.files": "samplers.safe_json",
}


class MovedModules:
    """An import hook that finds a module under its old path by importing the new one."""

    def find_spec(self, fullname: str, path=None, target=None):  # noqa: ARG002
        if fullname not in MOVED:
            return None
        return ModuleSpec(fullname, self, origin=find_spec(MOVED[fullname]).origin)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = MOVED[spec.name]
        text = f"{spec.name} is now {new}; the old path ends with the next release"
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        module = import_module(new)
        spec.loader_state = module.__spec__  # importing under the old name replaces it
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = module.__spec__.loader_state

    def get_code(self, fullname: str):
        """Returns the code that `python -m` runs."""
        return import_module(new := MOVED[fullname]).__spec__.loader.get_code(new)


def install() -> None:
    if not any(type(finder) is MovedModules for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
