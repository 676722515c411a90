"""Settings of `generate` that it would take silently, or stumble over, if they were of another
kind.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from janusflow.models.janus_pro.token_choice import COLDEST
from janusflow.models.janusflow.generation_defaults import IDS
from janusflow.pipelines.call_options import real


def check_settings(given: Mapping, vocabulary: int) -> None:
    """Raises ValueError for the first setting that is of another kind or out of range."""
    checks = CHECKS | dict.fromkeys(IDS, (_are_ids(vocabulary), f"token ids below {vocabulary}"))
    for name, value in given.items():
        fits, expected = checks.get(name, (None, ""))
        if name == "temperature" and value == 0:  # greedy, which `generate` checks
            continue
        if value is not None and fits is not None and not fits(value):
            raise ValueError(f"{name} is {value!r:.60}; expected {expected}")


def _within(least: float, most: float = math.inf) -> tuple[Callable, str]:
    def fits(value) -> bool:
        try:
            return least <= real(value, "") <= most
        except TypeError:
            return False

    top = f"from {least:g} to {most:g}" if most < math.inf else f"of at least {least:g}"
    return fits, f"a number {top}"


def _are_texts(value) -> bool:
    texts = [value] if isinstance(value, str) else value
    several = isinstance(texts, list | tuple) and bool(texts)
    return several and all(isinstance(text, str) and text for text in texts)


def _are_ids(vocabulary: int) -> Callable:
    """Returns a check of one or several ids; -1 is never generated, which people use."""

    def fits(value) -> bool:
        try:
            ids = torch.as_tensor(value if isinstance(value, Tensor) else np.asarray(value))
        except (TypeError, ValueError, OverflowError):
            return False
        whole = not (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool)
        return whole and bool(ids.numel()) and bool(((ids >= -1) & (ids < vocabulary)).all())

    return fits


SWITCH = (lambda value: isinstance(value, bool | np.bool_), "True or False")
FUNCTIONS = (
    lambda value: isinstance(value, list | tuple) and all(map(callable, value)),
    "a list of functions",
)
CHECKS: dict[str, tuple[Callable, str]] = {
    "do_sample": SWITCH,
    "use_cache": SWITCH,
    "logits_processor": FUNCTIONS,
    "stopping_criteria": FUNCTIONS,
    "streamer": (
        lambda value: hasattr(value, "put") and hasattr(value, "end"),
        "an object with put() and end()",
    ),
    "stop_strings": (_are_texts, "a text or several, none empty"),
    "temperature": _within(COLDEST, 1 / COLDEST),
    "top_p": _within(0, 1),
    "min_p": _within(0, 1),
    "typical_p": _within(0, 1),
    "max_time": _within(1e-9),
    "min_new_tokens": _within(0),
    "min_length": _within(0),
    "no_repeat_ngram_size": _within(0),
    "length_penalty": _within(-1e9),
}
