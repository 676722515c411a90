"""Which of several processes this is, as torchrun and `accelerate launch` tell it."""

from __future__ import annotations

import os


def number(name: str, default: int, least: int) -> int:
    """A whole number from the environment; ValueError for what is none."""
    text = os.environ.get(name)
    if text is None:
        return default
    try:
        value = int(text) if len(text) < 12 else least - 1
    except ValueError:
        value = least - 1
    if value < least:
        raise ValueError(
            f"the environment has {name}={text!r:.40}; expected a whole number of at least "
            f"{least}, unset it or start with torchrun or accelerate launch"
        )
    return value


def rank() -> int:
    """Returns the number of this process, from 0."""
    return number("RANK", 0, 0)


def world() -> int:
    """Returns the number of processes."""
    return number("WORLD_SIZE", 1, 1)


def share() -> tuple[int, int]:
    """`rank` and `world`; ValueError where the first is not below the second."""
    mine, all_of_them = rank(), world()
    if mine >= all_of_them:
        raise ValueError(
            f"the environment has RANK={mine} and WORLD_SIZE={all_of_them}; the first has to be "
            "below the second"
        )
    return mine, all_of_them
