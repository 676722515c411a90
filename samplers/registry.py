"""Registries of solvers, grids and rules by name."""

import difflib
import html
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

SHOWN = 16  # names that an error lists


class Registry(dict[str, T]):
    """A mapping from names to entries; it prints as a list, and as a table in a notebook.

    Names of release 0.1 are found too, with a warning, but not listed.
    """

    def __init__(self, kind: str, old: Mapping[str, str] | None = None):
        super().__init__()
        self.kind, self.old = kind, dict(old or {})

    def __missing__(self, name: str) -> T:
        if name not in self.old:
            raise KeyError(name)
        return self[renamed(name, self.old[name])]

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self.old

    def unknown(self, name: str) -> str:
        """Returns the error message for a name that is not registered."""
        small = {own.lower(): own for own in self}
        close = difflib.get_close_matches(str(name).lower(), small, 1)
        hint = f" (did you mean {small[close[0]]!r}?)" if close else ""
        more = f" and {len(self) - SHOWN} more" if len(self) > SHOWN + 2 else ""
        names = ", ".join(list(self)[: SHOWN if more else None])
        return f"no {self.kind} named {name!r:.80}{hint}; choose one of {names}{more}"

    def __repr__(self) -> str:
        return "\n".join(f"{name:20} {line(one)}" for name, one in self.items())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td><code>{html.escape(name)}</code></td><td>{html.escape(line(one))}</td></tr>"
            for name, one in self.items()
        )
        return f"<table><tr><th>{self.kind}</th><th>what it does</th></tr>{rows}</table>"


def line(one: Any) -> str:
    """Returns the first line of an entry's description."""
    text = getattr(one, "doc", None) or getattr(one, "__doc__", None) or ""
    return text.partition("\n")[0]


def old_names(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns a module's `__getattr__` for names of release 0.1, with a warning."""

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return getattr(sys.modules[module], renamed(name, names[name]))

    return find


def renamed(old: str, new: str, stacklevel: int = 3) -> str:
    """Returns the new name of an old one, after a warning."""
    text = f"{old} is now {new}; the old name ends with the next release"
    warnings.warn(text, DeprecationWarning, stacklevel=stacklevel)
    return new
