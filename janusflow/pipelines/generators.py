"""Random generators as arguments of a call: one for all images, or one per image."""

import inspect

import samplers
from samplers import seeds
from samplers.seeds import Generators as Generators


def generators(generator, seed, count: int) -> Generators:
    """Returns None, one generator for all images, or a list of `count` generators.

    `generator` is a torch.Generator or an integer seed, or a list of either with one per image.
    `seed` s gives image i a generator of its own with seed s + i, as on the command line; a list
    has one seed per image. Raises ValueError if both are given or the numbers differ.
    """
    return seeds.generators(generator, seed, count, of="images")


def seeded(solver: samplers.Solver, generator: Generators) -> samplers.Solver:
    """Returns a stochastic solver that draws from its own generator or seed, else from
    `generator`.
    """
    own = inspect.signature(solver.path).parameters
    told = [own[name].default for name in ("generator", "seed") if name in own]
    if generator is None or not told or any(value is not None for value in told):
        return solver
    return solver.with_options(generator=generator)
