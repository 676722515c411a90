"""Checks the types of values: those from files against the fields of a dataclass, and numbers."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from numbers import Real
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from janusflow.utils.text import printable


def built(kind: type, values: Any, name: str):
    """Returns `kind(**values)`; lists become tuples where the field is a tuple.

    Raises ValueError naming a field that is unknown, missing, or of another type than declared.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{name} holds a {type(values).__name__}; expected a JSON object")
    hints = get_type_hints(kind)
    if unknown := sorted(set(map(str, values)) - {f.name for f in fields(kind)}):
        raise ValueError(
            f"{name} holds {printable(repr(unknown[0]), 60)}, which is not one of its fields; "
            "remove it"
        )
    for field in fields(kind):
        if field.name not in values:
            if field.default is field.default_factory is MISSING:
                raise ValueError(f"{name} lacks {field.name}; write it again")
        elif not fits(values[field.name], hints[field.name]):
            shown = printable(repr(values[field.name]), 60)
            raise ValueError(f"{field.name} in {name} is {shown}; expected {_told(hints, field)}")
    made = {key: _tuples(value, hints[key]) for key, value in values.items()}
    return kind(**made)


def is_number(value: Any) -> bool:
    """Whether a value is a real number of Python or numpy; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value has the type: a bool is no int, an int is a float, NaN is neither."""
    origin, inside = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inside)
    if origin in (tuple, list):
        each = inside[0] if inside else Any
        return isinstance(value, list | tuple) and all(fits(one, each) for one in value)
    if origin is dict or hint is dict:
        pair = inside or (Any, Any)
        found = value.items() if isinstance(value, Mapping) else None
        return found is not None and all(fits(k, pair[0]) and fits(v, pair[1]) for k, v in found)
    if hint is NoneType or hint is None:
        return value is None
    if hint is float:
        return is_number(value) and _is_finite(value)
    return type(value) is hint


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond float64
        return False


def _told(hints: Mapping, field) -> str:
    hint = hints[field.name]
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def _tuples(value: Any, hint: Any) -> Any:
    return tuple(value) if get_origin(hint) is tuple and isinstance(value, list) else value
