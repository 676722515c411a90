"""Random generators as arguments: one for a call, or one per image."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Sequence

import numpy as np
import torch

import samplers

Generators = torch.Generator | list[torch.Generator] | None


def generators(generator, seed, count: int) -> Generators:
    """Returns None, one generator for all images, or a list of `count` generators.

    `generator` is a torch.Generator or an integer seed, or a list of either with one per image.
    `seed` s gives image i a generator of its own with seed s + i, as on the command line; a list
    has one seed per image. Raises ValueError if both are given or the numbers differ.
    """
    if seed is not None and generator is not None:
        raise ValueError("generator and seed both say where noise comes from; leave one out")
    if seed is not None:
        numbers = seed if _several(seed) else [_whole(seed) + i for i in range(count)]
        return _list(numbers, count, "seeds")
    if generator is None or isinstance(generator, torch.Generator):
        return generator
    return _list(generator, count, "generators") if _several(generator) else _seeded(generator)


def _several(value) -> bool:
    return isinstance(value, list | tuple) or getattr(value, "ndim", 0) == 1


def _list(values: Sequence, count: int, what: str) -> list[torch.Generator]:
    if len(values) != count:
        raise ValueError(f"{len(values)} {what} came for {count} images; give one, or one an image")
    return [v if isinstance(v, torch.Generator) else _seeded(v) for v in values]


def _seeded(number) -> torch.Generator:
    number = _whole(number)
    if not 0 <= number < 2**63:
        raise ValueError(f"the seed is {number}; expected 0 or more, below 2^63")
    return torch.Generator().manual_seed(number)


def _whole(number) -> int:
    if isinstance(number, bool | np.bool_):
        raise TypeError(f"the seed is {number!r}; expected a whole number or a torch.Generator")
    try:
        return operator.index(number)
    except TypeError:
        raise TypeError(
            f"the seed is {number!r:.60}; expected a whole number or a torch.Generator"
        ) from None


def seeded(solver: samplers.Solver, generator: Generators) -> samplers.Solver:
    """Returns a stochastic solver that draws from its own generator, else from `generator`."""
    own = inspect.signature(solver.path).parameters.get("generator")
    if generator is None or own is None or own.default is not None:
        return solver
    return solver.with_options(generator=generator)
