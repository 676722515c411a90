"""Explicit Runge-Kutta rules; no step depends on earlier ones (Hairer, Norsett, Wanner 1993,
II.1).
"""

from torch import Tensor

from samplers.solver_registry import Path, Velocity, advance, solver, steps


@solver(order=1, calls=1, time_gradient=True)
def euler(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """Euler's rule: x + h v(x, t)."""
    for t, _, h in steps(ts):
        x = advance(x, (h, v(x, t)))
        yield x


@solver(order=2, calls=2, time_gradient=True)
def midpoint(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """The velocity half a step ahead, found by Euler (Runge 1895)."""
    for t, _, h in steps(ts):
        half = advance(x, (h / 2, v(x, t)))
        x = advance(x, (h, v(half, t + h / 2)))
        yield x


@solver(order=2, calls=2, time_gradient=True)
def heun(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """The trapezoid rule with an Euler predictor (Karras et al. 2022, Alg. 1)."""
    for t, s, h in steps(ts):
        k1 = v(x, t)
        k2 = v(advance(x, (h, k1)), s)
        x = advance(x, (h / 2, k1), (h / 2, k2))
        yield x


@solver(order=2, calls=2, time_gradient=True)
def ralston(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """Second stage at two thirds: the smallest error bound of two stages (Ralston 1962)."""
    for t, _, h in steps(ts):
        k1 = v(x, t)
        k2 = v(advance(x, (h * 2 / 3, k1)), t + h * 2 / 3)
        x = advance(x, (h / 4, k1), (h * 3 / 4, k2))
        yield x


@solver(order=3, calls=3, time_gradient=True)
def heun3(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """Stages at 0, 1/3, 2/3 with weights 1/4, 0, 3/4 (Heun 1900)."""
    for t, _, h in steps(ts):
        k1 = v(x, t)
        k2 = v(advance(x, (h / 3, k1)), t + h / 3)
        k3 = v(advance(x, (h * 2 / 3, k2)), t + h * 2 / 3)
        x = advance(x, (h / 4, k1), (h * 3 / 4, k3))
        yield x


@solver(order=3, calls=3, time_gradient=True)
def kutta3(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """Simpson's weights 1/6, 2/3, 1/6 on stages at 0, 1/2, 1 (Kutta 1901)."""
    for t, s, h in steps(ts):
        k1 = v(x, t)
        k2 = v(advance(x, (h / 2, k1)), t + h / 2)
        k3 = v(advance(x, (-h, k1), (2 * h, k2)), s)
        x = advance(x, (h / 6, k1), (h * 2 / 3, k2), (h / 6, k3))
        yield x


@solver(order=4, calls=4, time_gradient=True)
def rk4(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """The classical rule of four stages (Kutta 1901)."""
    for t, s, h in steps(ts):
        mid = t + h / 2
        k1 = v(x, t)
        k2 = v(advance(x, (h / 2, k1)), mid)
        k3 = v(advance(x, (h / 2, k2)), mid)
        k4 = v(advance(x, (h, k3)), s)
        x = advance(x, (h / 6, k1), (h / 3, k2), (h / 3, k3), (h / 6, k4))
        yield x


@solver(order=4, calls=4, time_gradient=True)
def kutta4(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """The 3/8 rule: stages at 0, 1/3, 2/3, 1, a little more exact than `rk4` (Kutta 1901)."""
    for t, s, h in steps(ts):
        k1 = v(x, t)
        k2 = v(advance(x, (h / 3, k1)), t + h / 3)
        k3 = v(advance(x, (-h / 3, k1), (h, k2)), t + h * 2 / 3)
        k4 = v(advance(x, (h, k1), (-h, k2), (h, k3)), s)
        x = advance(x, (h / 8, k1), (h * 3 / 8, k2), (h * 3 / 8, k3), (h / 8, k4))
        yield x
