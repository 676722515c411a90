"""The rank and world size of a distributed run, as torchrun and `accelerate launch` set them."""

import os


def number(name: str, default: int, least: int) -> int:
    """Returns a whole number from an environment variable. Raises ValueError if it is not one."""
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
    """Returns the rank of this process, starting at 0."""
    return number("RANK", 0, 0)


def world() -> int:
    """Returns the number of processes (the world size)."""
    return number("WORLD_SIZE", 1, 1)


def share() -> tuple[int, int]:
    """Returns `rank` and `world`. Raises ValueError if the rank is not below the world size."""
    mine, all_of_them = rank(), world()
    if mine >= all_of_them:
        raise ValueError(
            f"the environment has RANK={mine} and WORLD_SIZE={all_of_them}; the first has to be "
            "below the second"
        )
    return mine, all_of_them
