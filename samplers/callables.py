"""Functions given as arguments: whether they take what they will be called with."""

import inspect
from collections.abc import Callable


def check_velocity(v: object) -> None:
    """Raises TypeError for a velocity that cannot be called."""
    if not callable(v):
        raise TypeError(f"the velocity is {type(v).__name__}; pass a function v(x, t) or a network")


def check_arguments(function: Callable, name: str, *arguments: str) -> None:
    """Raises TypeError for a function that cannot be called with so many arguments by position.

    One whose signature is unknown, as of some built-in functions, is taken.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*arguments)
    except TypeError:
        raise TypeError(
            f"the {name} is called with ({', '.join(arguments)}) and takes {signature}; write a "
            "function of these arguments"
        ) from None
