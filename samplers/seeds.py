"""Random generators as arguments: one for a run, one per sample, or seeds of them."""

import functools
import inspect
import operator
from collections.abc import Callable, Sequence

import torch

Generators = torch.Generator | Sequence[torch.Generator] | None


def generators(generator, seed, count: int, of: str = "samples") -> Generators:
    """Returns None, one generator for all samples, or a list of `count` generators.

    `generator` is a torch.Generator or an integer seed, or a list of either with one per sample.
    `seed` s gives sample i a generator of its own with seed s + i; a list has one seed per sample.
    Raises ValueError if both are given or the numbers differ, and TypeError for anything else.
    """
    if seed is not None and generator is not None:
        raise ValueError("generator and seed both say where noise comes from; leave one out")
    if seed is not None:
        numbers = seed if _several(seed) else [_whole(seed) + i for i in range(count)]
        return _list(numbers, count, "seeds", of)
    if generator is None or isinstance(generator, torch.Generator):
        return generator
    if _several(generator):
        return _list(generator, count, "generators", of)
    return seeded(generator)


def drawn_seeds(seed: int | None, generator: Generators, count: int) -> list[int]:
    """Returns a seed for each generator, drawn without disturbing the latents' random numbers."""
    if _several(generator) and len(generator) == 1:
        (generator,) = generator
    drawn = generators(generator, None, count) if seed is None else seeded(seed)
    return [
        int(torch.randint(2**62, (1,), generator=one, device=getattr(one, "device", "cpu")))
        for one in (drawn if isinstance(drawn, list) else [drawn])
    ]


def seeded(number) -> torch.Generator:
    """Returns a generator on the CPU with this seed. Raises TypeError or ValueError otherwise."""
    number = _whole(number)
    if not 0 <= number < 2**63:
        raise ValueError(f"the seed is {number}; expected 0 or more, below 2^63")
    return torch.Generator().manual_seed(number)


def takes_seed(path: Callable) -> Callable:
    """Returns a solver's path that takes `seed` beside `generator`; other paths as they are.

    A seed begins again with every run, where a generator goes on.
    """
    own = inspect.signature(path)
    if "generator" not in own.parameters:
        return path

    @functools.wraps(path)
    def drawn(v, x, ts, *, generator=None, seed=None, **options):
        return path(v, x, ts, generator=generators(generator, seed, len(x)), **options)

    keyword = inspect.Parameter("seed", inspect.Parameter.KEYWORD_ONLY, default=None)
    drawn.__signature__ = own.replace(parameters=[*own.parameters.values(), keyword])
    return drawn


def _several(value) -> bool:
    return isinstance(value, list | tuple) or getattr(value, "ndim", 0) == 1


def _list(values: Sequence, count: int, what: str, of: str) -> list[torch.Generator]:
    if len(values) != count:
        raise ValueError(f"{len(values)} {what} came for {count} {of}; give one, or one each")
    return [v if isinstance(v, torch.Generator) else seeded(v) for v in values]


def _whole(number) -> int:
    try:
        if type(number).__name__ in ("bool", "bool_"):  # of Python and numpy
            raise TypeError
        return operator.index(number)
    except TypeError:
        raise TypeError(
            f"the seed is {number!r:.60}; expected a whole number or a torch.Generator"
        ) from None
