"""Two solvers known from inverting and editing images with rectified flows.

Any solver inverts on a falling grid; see `samplers.editing`.
"""

from torch import Tensor

from samplers.solver_registry import Path, Velocity, advance, solver, steps


@solver(order=2, calls=2, time_gradient=True)
def rf_solver(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """x + h v + h^2/2 v', with v' the difference of v over half a step; Wang et al. 2024.

    It is a Taylor series of two terms, and identical to the midpoint rule.
    """
    for t, s, h in steps(ts):
        k = v(x, t)
        slope = (v(advance(x, (h / 2, k)), (t + s) / 2) - k) / (h / 2)
        x = advance(x, (h, k), (h * h / 2, slope))
        yield x


@solver(order=2, calls=1, extra=1, time_gradient=True)
def fireflow(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """The midpoint rule, where the previous step's velocity leads to the middle; Deng et al. 2024.

    The reused velocity has an error O(h), so the middle has O(h^2) and the step O(h^3): second
    order for one evaluation per step, and one more at the start.
    """
    k = v(x, ts[0])
    for t, s, h in steps(ts):
        k = v(advance(x, (h / 2, k)), (t + s) / 2)
        x = advance(x, (h, k))
        yield x


def __getattr__(name: str):
    """Returns names that have moved to `samplers.editing`, under their old names."""
    from samplers import editing

    return getattr(editing, name)
