"""All limits on untrusted files and on requests. The environment can raise each of them.

Example: `JANUSFLOW_MAX_PIXELS=400000000 janusflow chat poster.png "what is it?"`.
"""

import operator
import os
import warnings
from math import inf

from janusflow.utils.text import printable

# name: (at most, of what). Chosen far above what honest files need and far below what a machine
# cannot hold.
LIMITS: dict[str, tuple[int, str]] = {
    "pixels": (100_000_000, "pixels of an image that is read"),
    "image_bytes": (512 * 2**20, "bytes of an image's file"),
    "prompts_bytes": (16 * 2**20, "bytes of a prompt file"),
    "results_bytes": (256 * 2**20, "bytes of an evaluator's results"),
    "prompt": (4_000, "characters of a prompt"),
    "text": (262_144, "characters of a text with its chat format"),
    "tokens": (16_384, "tokens of a text"),
    "number": (100_000, "steps, images per prompt or at once, or tokens of an answer"),
    "items": (1_000_000, "images of a category, or answers of a template, in an evaluation"),
    "threads": (1_024, "threads of torch"),
    "side": (8_192, "pixels along a side of an image that is made"),
    "tokenizer_bytes": (64 * 2**20, "bytes of tokenizer.json"),
    "config_bytes": (4 * 2**20, "bytes of any other JSON file"),
    "index_bytes": (64 * 2**20, "bytes of an index of weight files"),
    "layers": (512, "blocks of one part of the network"),
    "width": (65_536, "channels of a layer"),
    "mlp_width": (1_048_576, "channels inside a block's MLP"),
    "vocabulary": (4_194_304, "rows of the token embedding"),
    "positions": (16_777_216, "positions of the language model"),
    "image_size": (16_384, "pixels along a side of a vision tower's image"),
    "package_bytes": (2**30, "bytes of a package"),
    "member_bytes": (256 * 2**20, "bytes of a file in a package"),
    "labels": (10_000, "labels of a configuration"),
    "parameters": (40_000_000_000, "parameters of a network"),
}

OLD = {"image_bytes": "picture_bytes"}  # names of release 0.1, for one more release


def most(name: str) -> int:
    """Returns the limit in force: JANUSFLOW_MAX_NAME if it is set, otherwise the one in LIMITS.

    Raises ValueError if the variable is not a whole number of at least 1.
    """
    variable = f"JANUSFLOW_MAX_{name.upper()}"
    text = os.environ.get(variable)
    if text is None and name in OLD and (old := f"JANUSFLOW_MAX_{OLD[name].upper()}") in os.environ:
        warnings.warn(f"{old} is now {variable}", DeprecationWarning, stacklevel=2)
        text = os.environ[old]
    if text is None:
        return LIMITS[name][0]
    if not text.isascii() or not text.isdecimal() or len(text) > 18 or int(text) < 1:
        raise ValueError(f"{variable} is {text!r:.40}; expected a whole number of at least 1")
    return int(text)


def within(what: str, value: float | None, low: float, high: float = inf) -> None:
    """Raises ValueError for a number outside [low, high]; None passes."""
    if value is not None and not low <= value <= high:
        wanted = f"{low} to {high}" if high < inf else f"at least {low}"
        raise ValueError(f"{what} is {value}; expected {wanted}")


def whole(value, name: str, limit: str | None = None, optional: bool = False) -> int | None:
    """Returns a whole number from 1 to the limit, given as a Python, numpy or torch number.

    With `optional` None is returned as such. Raises ValueError otherwise.
    """
    if value is None and optional:
        return None
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name} is {value!r:.60}; expected a whole number of at least 1")
    if limit is not None:
        hold(limit, number, f"{name} is {number}")
    return number


def hold(name: str, value: int, what: str) -> None:
    """Raises ValueError above the limit; `what` is its subject, as "x.png has 9 x 9 pixels"."""
    if value > most(name):
        raise ValueError(
            f"{printable(what, 200)}; at most {most(name)} are taken, or set "
            f"JANUSFLOW_MAX_{name.upper()}"
        )
