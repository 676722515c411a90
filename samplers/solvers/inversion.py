"""Two solvers known from inverting and editing images with rectified flows.

Any solver inverts when its grid runs backwards; see `samplers.editing`.
"""

from torch import Tensor

from samplers.core import Path, Velocity, advance, solver, steps


@solver(order=2, calls=2, time_gradient=True)
def rf_solver(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """x + h v + h^2/2 v', with v' the difference of v over half a step; Wang et al. 2024.

    Two terms of Taylor's series. Written out, it is the midpoint rule.
    """
    for t, s, h in steps(ts):
        k = v(x, t)
        slope = (v(advance(x, (h / 2, k)), (t + s) / 2) - k) / (h / 2)
        x = advance(x, (h, k), (h * h / 2, slope))
        yield x


@solver(order=2, calls=1, extra=1, time_gradient=True)
def fireflow(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """The midpoint rule whose way to the middle reuses the last step's velocity; Deng et al. 2024.

    The reused velocity is wrong by O(h), so the middle by O(h^2) and the step by O(h^3): second
    order for one call per step, and one more to begin with.
    """
    k = v(x, ts[0])
    for t, s, h in steps(ts):
        k = v(advance(x, (h / 2, k)), (t + s) / 2)
        x = advance(x, (h, k))
        yield x


def __getattr__(name: str):
    """What stood here before `samplers.editing`, under its names of then."""
    from samplers import editing

    return getattr(editing, name)
