"""Values of settings: read from YAML, converted to their fields' types by pydantic, old names
mapped.

Nothing here knows the sections; `config.py` does.
"""

import re
import types
import typing
import warnings
from collections.abc import Iterable, Mapping
from functools import cache

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from janusflow.utils.keywords import aside

RENAMED = {  # names of release 0.1, for one more release
    "training.clip": "training.max_grad_norm",
    "training.prompt_drop": "training.cond_dropout",
    "training.trains": "training.trainable",
    "run.broken_limit": "run.max_bad_samples",
    "clip": "max_grad_norm",  # of recipes
    "prompt_drop": "cond_dropout",
}


def today(name: str) -> str:
    """Returns the current name of a setting; an old name causes a FutureWarning."""
    if name not in RENAMED:
        return name
    warnings.warn(f"{name} is now called {RENAMED[name]}; please rename it", FutureWarning, 2)
    return RENAMED[name]


def unknown(name: str, known: Iterable[str]) -> str:
    """Returns the message for an unknown name: the most similar known name first, then all."""
    known = list(known)
    return f"no setting named {name!r}{aside(name, known)}; there are {', '.join(known)}"


@cache
def hints_of(kind: type) -> Mapping[str, object]:
    """Returns the types of a dataclass's fields."""
    return typing.get_type_hints(kind)


@cache
def _reader(hint) -> TypeAdapter:
    return TypeAdapter(hint, config=ConfigDict(allow_inf_nan=False, arbitrary_types_allowed=True))


def as_hint(hint, value, name: str):
    """Converts a value to the field's type `hint`, and the text "a,b" to a tuple.

    Raises ValueError for a value of another type.
    """
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if isinstance(value, str) and any(
        tuple in (option, typing.get_origin(option)) for option in options
    ):
        value = [part for part in value.split(",") if part]
    try:
        if isinstance(value, bool) and bool not in options:
            raise TypeError
        if isinstance(value, str) and int in options and float not in options:
            value = float(value)  # "1e4" is a whole number
        return _reader(hint).validate_python(value)
    except (ValidationError, TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} is {value!r:.80}; expected {_named(hint)}") from None


def _named(hint) -> str:
    return "float (finite)" if hint is float else getattr(hint, "__name__", str(hint))


NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
BOOLEAN = "tag:yaml.org,2002:bool"


class _Plain(yaml.SafeLoader):
    """YAML without aliases, which could grow to any size, and without a key twice. 2e-5 is a
    number, 4:3 and no are texts, which a field of true or false reads as such.
    """

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it repeats a value by an alias; write it out")
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor):
        node = super().compose_mapping_node(anchor)
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if again := [name for i, name in enumerate(names) if name in names[:i]]:
            raise yaml.YAMLError(f"it sets {again[0]!r:.60} twice; keep one")
        return node

    def resolve(self, kind, value, implicit):
        tag = super().resolve(kind, value, implicit)
        of_sixties = kind is yaml.ScalarNode and ":" in value and tag in NUMBERS
        of_words = tag == BOOLEAN and value.lower() not in ("true", "false")
        return "tag:yaml.org,2002:str" if of_sixties or of_words else tag


_EXPONENT = re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
_Plain.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))


def parse_yaml(text: str, name: str):
    """Parses YAML to plain values. Raises ValueError if it is invalid."""
    try:
        return _Plain(text).get_single_data()  # safe: no tag makes an object
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{name} is not valid YAML; correct it ({' '.join(str(error).split())[:160]})"
        ) from error
