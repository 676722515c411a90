"""Restart sampling for velocities: part of the way is made twice; Xu et al. 2023 (2306.14878).

Noise between the two leads from the end of that part back to its beginning. It contracts what the
first pass has added in errors, which the last steps of an ODE never forget, and the second pass
takes the noise out again with an error of its own only.
"""

from torch import Tensor

from samplers.core import Path, Velocity, solver
from samplers.solvers.runge_kutta import heun
from samplers.solvers.stochastic import Generators, draws, renoise
from samplers.solvers.transitions import forward


def twice(steps: int) -> tuple[int, int]:
    """Which steps are made twice: those from the first number to before the second, a third."""
    return steps // 3, 2 * steps // 3


@solver(order=2, calls=2, extra=lambda n: 2 * (twice(n)[1] - twice(n)[0]), stochastic=True)
def restart_heun(v: Velocity, x: Tensor, ts: Tensor, *, generator: Generators = None) -> Path:
    """Heun's steps, the middle third of them twice with noise between; Xu et al. 2023, Alg. 1."""
    forward("restart_heun", ts[0], ts[-1])
    draw, (first, last) = draws(x, generator), twice(len(ts) - 1)
    for i in range(len(ts) - 1):
        (x,) = heun(v, x, ts[i : i + 2])
        if i + 1 == last > first:
            x = renoise(x, ts[last], ts[first], draw())
            *_, x = heun(v, x, ts[first : last + 1])
        yield x
