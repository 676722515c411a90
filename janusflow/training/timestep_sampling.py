"""The times at which training evaluates a flow: densities, shifts and strata, by (seed, step)
alone.

A density maps uniform numbers to times. The uniform numbers are stratified: one from each of as
many equal intervals as the batch has samples, so every batch follows the density closely and the
gradient has a lower variance.
"""

import inspect
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from janusflow.utils.keywords import choice

Density = Callable[..., Tensor]
DENSITIES: dict[str, Density] = {}


def density(draw: Density) -> Density:
    """Registers a density: uniform numbers u (B,) in (0, 1) -> times (B,) in (0, 1)."""
    DENSITIES[draw.__name__] = draw
    return draw


@density
def uniform(u: Tensor) -> Tensor:
    return u


@density
def logit_normal(u: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """t = sigmoid(mean + std z), z normal. Esser et al. 2024 (SD3), eq. 19."""
    return torch.special.ndtri(u).mul(std).add(mean).sigmoid()


@density
def cosmap(u: Tensor) -> Tensor:
    """p(t) = 2 / (pi (1 - 2 t + 2 t^2)), by its inverse. Esser et al. 2024, eq. 21."""
    return 1 - 1 / (torch.tan(torch.pi / 2 * u) + 1)


@density
def mode(u: Tensor, scale: float = 1.29) -> Tensor:
    """t = 1 - u - s (cos^2(pi u / 2) - 1 + u). Esser et al. 2024, eq. 20."""
    return 1 - u - scale * (torch.cos(torch.pi / 2 * u) ** 2 - 1 + u)


@density
def u_shaped(u: Tensor, steepness: float = 4.0) -> Tensor:
    """p(t) ~ exp(a t) + exp(a (1 - t)), by its inverse. Lee et al. 2024, arXiv 2405.20320."""
    return 0.5 + torch.asinh((2 * u - 1) * math.sinh(steepness / 2)) / steepness


def shifted(t: Tensor, shift: float) -> Tensor:
    """Shifts times towards the noise for shift > 1: with s = 1 - t, s -> a s / (1 + (a - 1) s)."""
    return t / (shift + (1 - shift) * t)


def at(u: Tensor, name: str = "logit_normal", *, shift: float = 1.0, **options: float) -> Tensor:
    """Maps uniform numbers u (B,) to times by density, options and shift.

    Raises ValueError for an unknown density or option, or numbers out of range.
    """
    choice("no density named", name, DENSITIES)
    known = options_of(name)
    if unknown := sorted(options.keys() - set(known)):
        raise ValueError(
            f"density {name!r} has no option {unknown[0]!r}; it has {', '.join(known) or 'none'}"
        )
    if not shift > 0 or not options.get("std", 1) > 0 or not options.get("steepness", 1) > 0:
        raise ValueError(
            f"shift is {shift!r} and the density has {options}; expected positive numbers"
        )
    return shifted(DENSITIES[name](u.clamp(1e-6, 1 - 1e-6), **options), shift)


def options_of(name: str) -> list[str]:
    """Returns the options of a density, such as its mean and standard deviation."""
    return list(inspect.signature(DENSITIES[name]).parameters)[1:]


def strata(count: int, generator: torch.Generator | None = None) -> Tensor:
    """Returns uniform numbers (count,), one from each of `count` intervals, in random order."""
    order = torch.randperm(count, generator=generator)
    return (order + torch.rand(count, generator=generator)) / count


# Randomness as a function of (seed, step, row): any division of a batch among processes draws the
# same numbers.


def generator(seed: int, step: int, *key: int) -> torch.Generator:
    """Returns a CPU generator that depends on these whole numbers alone."""
    words = [seed, step, len(key), *key]  # the length, because trailing zeros do not count
    state = np.random.SeedSequence(words).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def step_times(
    seed: int, step: int, rows: range, total: int, name: str = "logit_normal", **options: float
) -> Tensor:
    """Returns these rows' times of a batch of `total`, stratified over it; errors as of `at`."""
    return at(strata(total, generator(seed, step, 0))[rows.start : rows.stop], name, **options)


def step_uniform(seed: int, step: int, rows: range, total: int, stream: int = 1) -> Tensor:
    """Returns uniform numbers for these rows of a global batch; streams are independent."""
    return torch.rand(total, generator=generator(seed, step, stream))[rows.start : rows.stop]


def step_noise(seed: int, step: int, rows: range, shape: tuple[int, ...]) -> Tensor:
    """Returns normal noise (len(rows), *shape); each row depends on (seed, step, row) alone."""
    return torch.stack([torch.randn(shape, generator=generator(seed, step, 0, r)) for r in rows])
