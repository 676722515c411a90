"""Random generators as arguments of a call: one for all images, or one per image."""

import inspect
import warnings
from functools import partial

import samplers
from samplers import seeds
from samplers.seeds import Generators as Generators

generators = partial(seeds.generators, of="images")


def seeded(solver: samplers.Solver, generator: Generators) -> samplers.Solver:
    """Returns a stochastic solver that draws from its own generator or seed, else from
    `generator`.
    """
    if generator is None or not lacks_seed(solver):
        return solver
    return solver.with_options(generator=generator)


def lacks_seed(solver: samplers.Solver) -> bool:
    """Returns whether a solver draws noise, and from no generator or seed of its own."""
    own = inspect.signature(solver.path).parameters
    told = [own[name].default for name in ("generator", "seed") if name in own]
    return bool(told) and all(value is None for value in told)


def warn_unused(generator, seed, why: str, stacklevel: int = 4) -> None:
    """Warns that a given `seed` or `generator` changes nothing, because of `why`."""
    if generator is not None or seed is not None:
        name = "generator" if seed is None else "seed"
        warnings.warn(f"{name} changes nothing: {why}", stacklevel=stacklevel)


def warn_beside_latents(options, solver: samplers.Solver) -> None:
    """Warns of a seed beside latents, on a solver that draws no noise of its own."""
    if options.latents is not None and not lacks_seed(solver):
        why = f"latents are the noise, and {solver.name} draws none of its own; leave it out"
        warn_unused(options.generator, options.seed, why, stacklevel=7)
