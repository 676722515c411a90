"""Names of arguments and modules: unknown ones are refused, old ones work for one more release."""

import functools
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

Result = TypeVar("Result")

SHOWN = 8  # known names that an error lists
MANY = 16  # choices that an error lists


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns a hint such as "; did you mean 'dtype'?" if a known name is similar, otherwise ""."""
    known = list(known)
    small = {word.lower(): word for word in known}  # EULER is nearest to euler
    parts = (word for word in known if len(name) > 3 and f"_{name}_" in f"_{word}_")
    found = _close(name, small, 0.75) or next(parts, None) or _close(name, small, 0.6)
    return f"; did you mean {found!r}?" if found else ""


def _close(name: str, small: Mapping[str, str], cutoff: float) -> str | None:
    return next((small[one] for one in get_close_matches(name.lower(), small, 1, cutoff)), None)


def aside(name: str, known: Iterable[str]) -> str:
    """Returns the same hint in brackets, for a sentence that goes on."""
    return nearest(name, known).replace("; ", " (", 1).replace("?", "?)")


def choice(said: str, value, known: Collection, more: str = "") -> None:
    """Raises ValueError unless the value is known, with the nearest known one, all, and `more`.

    Example: `choice("no quality named", name, QUALITIES)`.
    """
    names = list(map(str, known))
    if value not in (known if isinstance(value, str) else list(known)):
        hint = aside(str(value), names)
        listed = ", ".join(names[:MANY]) + (f" and {len(names) - MANY} more" * (len(names) > MANY))
        raise ValueError(f"{said} {value!r:.80}{hint}; choose one of {listed}{more}")


def refuse_unknown(function: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raises TypeError for the first unknown keyword, suggesting a similar one."""
    known = list(dict.fromkeys(known))
    for name in given:
        if name not in known:
            more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
            hint = nearest(name, known) or f"; it takes {', '.join(known[:SHOWN])}{more}"
            raise TypeError(f"{function} got {name!r:.60}, which is not an argument{hint}")


def modern(function: str, given: dict, names: dict[str, str]) -> dict:
    """Returns the keywords with each old name replaced by `names[old]`, with a DeprecationWarning.

    Raises TypeError if both the old and the new name are given.
    """
    found = {}
    for name, value in given.items():
        new = names.get(name, name)
        if new in found or (new != name and new in given):
            raise TypeError(
                f"{function} got {name!r} and {new!r}, which are one; leave {name!r} out"
            )
        if new != name:
            warnings.warn(
                f"{name!r} of {function} is now {new!r}; the old name ends with the next release",
                DeprecationWarning,
                stacklevel=4,
            )
        found[new] = value
    return found


def renamed(**names: str) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """A decorator that accepts keywords under their old names, with a DeprecationWarning."""

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def call(*args, **given):
            return function(*args, **modern(function.__name__, given, names))

        return call

    return decorate


def old_names(module: str, names: Mapping[str, str]) -> Callable[[str], object]:
    """Returns a module-level `__getattr__` of old names, with a DeprecationWarning."""

    def find(name: str):
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        told = f"{module}.{name} is now called {names[name]}; please rename it"
        warnings.warn(told, DeprecationWarning, stacklevel=2)
        return getattr(sys.modules[module], names[name])

    return find
