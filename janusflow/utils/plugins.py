"""Loads users' own solvers, guidance rules, losses, teachers, rewards and tasks.

A plugin is a module whose decorators register what it defines:

    @samplers.solver(order=1, calls=1)      # my_solvers.py
    def my_euler(v, x, ts): ...

    janusflow generate "a star" --plugin my_solvers --sampler my_euler

An installed package needs no option: it names its module in `pyproject.toml` under
`[project.entry-points."janusflow.plugins"]`.
"""

import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

GROUP = "janusflow.plugins"
LOADED: list[str] = []  # names that other processes load as well, in order


def load(names: Iterable[str] = ()) -> list[ModuleType]:
    """Imports the installed plugins and then `names`: modules, or paths of .py files.

    A module is searched for on Python's path, then in the working directory. An installed plugin
    that fails causes a warning and is skipped. Raises ValueError if one of `names` fails.
    """
    return [*_installed(), *map(load_one, names)]


def load_one(name: str) -> ModuleType:
    """Imports one module, or one .py file under its stem. Raises ValueError if the import fails."""
    try:
        found = _from_file(Path(name)) if name.endswith(".py") else _from_name(name)
        kept = str(Path(name).resolve()) if name.endswith(".py") else name
        LOADED.extend([kept] if kept not in LOADED else [])
        return found
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and _absent(error, name):
            problem = "is neither a module that Python finds from here nor a .py file"
        else:
            problem = f"cannot be imported ({type(error).__name__}: {str(error)[:160]})"
        raise ValueError(f"plugin {name!r:.120} {problem}; correct it or its name") from error


def _installed() -> list[ModuleType]:
    found = []
    for entry in entry_points(group=GROUP):
        try:
            found.append(entry.load())
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error)[:160]}"
            warnings.warn(f"plugin {entry.value!r} is left out ({reason})", stacklevel=3)
    return found


def _from_name(name: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # last, so that nothing there takes a library's name
    return importlib.import_module(name)


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ModuleNotFoundError(name=str(path))
    name = path.stem
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(path.resolve()):
        return known
    if known is not None:
        raise ValueError(f"a module named {name} is already imported; rename the plugin's file")
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs, as dataclasses and pickle expect
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _absent(error: ModuleNotFoundError, name: str) -> bool:
    """Returns whether the plugin itself is missing, and not a module that it imports."""
    return error.name is not None and (name == error.name or name.startswith(f"{error.name}."))
