"""Restart sampling for velocities: a part of the path is integrated twice; Xu et al. 2023
(2306.14878).

Added noise leads from the end of that part back to its beginning. It contracts the errors of the
first pass, which an ODE never forgets, and the second pass removes the noise again with an error of
its own only.
"""

from torch import Tensor

from samplers.solver_registry import Path, Velocity, solver
from samplers.solvers.runge_kutta import heun
from samplers.solvers.stochastic import Generators, draws, renoise
from samplers.solvers.transitions import forward


def twice(steps: int) -> tuple[int, int]:
    """Returns which steps are made twice: the middle third of them."""
    return steps // 3, 2 * steps // 3


@solver(order=2, calls=2, extra=lambda n: 2 * (twice(n)[1] - twice(n)[0]), stochastic=True)
def restart_heun(v: Velocity, x: Tensor, ts: Tensor, *, generator: Generators = None) -> Path:
    """Heun's steps, the middle third twice with noise between; Xu et al. 2023, Alg. 1."""
    forward("restart_heun", ts[0], ts[-1])
    draw, (first, last) = draws(x, generator), twice(len(ts) - 1)
    for i in range(len(ts) - 1):
        (x,) = heun(v, x, ts[i : i + 2])
        if i + 1 == last > first:
            x = renoise(x, ts[last], ts[first], draw())
            *_, x = heun(v, x, ts[first : last + 1])
        yield x
