"""Names that changed since release 0.1; the old ones work for one more release."""

import sys
import warnings
from collections.abc import Callable, Mapping


def old_names(module: str, names: Mapping[str, str]) -> Callable[[str], object]:
    """Returns a module-level `__getattr__` of old names, with a DeprecationWarning."""

    def find(name: str):
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        told = f"{module}.{name} is now called {names[name]}; please rename it"
        warnings.warn(told, DeprecationWarning, stacklevel=2)
        return getattr(sys.modules[module], names[name])

    return find
