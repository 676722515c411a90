"""Solvers of flow maps u(x, t, s): a step of any length takes one evaluation and is exact for an
exact u.

`samplers.flow_map(u)` makes such a field. The solvers differ in how they use more evaluations of an
imperfect u: for shorter jumps, or with new noise.
"""

from itertools import pairwise

import torch
from torch import Tensor

from samplers.solver_registry import Path, Velocity, advance, solver, steps
from samplers.solvers.stochastic import Generators, draws, renoise
from samplers.solvers.transitions import forward


@solver(order=None, calls=1, maps=True, time_gradient=True)
def jump(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """x + (s - t) u(x, t, s): N evaluations for N steps, forwards or backwards."""
    for t, s, h in steps(ts):
        x = advance(x, (h, v(x, t, s)))
        yield x


@solver(order=None, calls=1, maps=True, stochastic=True)
def consistency(v: Velocity, x: Tensor, ts: Tensor, *, generator: Generators = None) -> Path:
    """Jumps to the data from each time and returns to the next time with new noise.

    x_s = s (x + (1 - t) u(x, t, 1)) + (1 - s) N(0, I); Song et al. 2023 (consistency models, Alg.
    1). Errors of earlier jumps are forgotten with their noise; those of the last one remain.
    """
    forward("consistency", ts[0], ts[-1])
    draw = draws(x, generator)
    for t, s in pairwise(ts.unbind()):
        data = advance(x, (float(1 - t), v(x, t, torch.ones_like(t))))
        x = float(s) * data + float(1 - s) * draw()
        yield x


@solver(order=None, calls=2, extra=-1, maps=True, stochastic=True)
def restart(v: Velocity, x: Tensor, ts: Tensor, *, generator: Generators = None) -> Path:
    """Makes each jump but the first twice, with noise in between that leads from s back to t.

    The noise contracts the error of the first jump; Xu et al. 2023 (Restart sampling). From pure
    noise there is nothing to repeat.
    """
    forward("restart", ts[0], ts[-1])
    draw = draws(x, generator)
    for t, s, h in steps(ts):
        if t != ts[0]:
            x = renoise(advance(x, (h, v(x, t, s))), s, t, draw())
        x = advance(x, (h, v(x, t, s)))
        yield x
