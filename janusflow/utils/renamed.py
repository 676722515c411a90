"""Names that changed since release 0.1; the old ones work for one more release."""

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module


def old_names(module: str, names: Mapping[str, str]) -> Callable[[str], object]:
    """Returns a module-level `__getattr__` of old names, with a DeprecationWarning.

    `names` maps an old name to the new one, which is dotted where it moved to another module.
    """

    def find(name: str):
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        told = f"{module}.{name} is now called {names[name]}; please rename it"
        warnings.warn(told, DeprecationWarning, stacklevel=2)
        where, _, new = names[name].rpartition(".")
        return getattr(import_module(where or module), new)

    return find
