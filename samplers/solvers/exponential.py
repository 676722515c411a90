"""Multistep rules with a linear part removed, as samplers of diffusion models use them.

The papers extrapolate in log SNR, which is infinite at both ends of the straight path and would
reduce the first and last steps to order one; here the clock is t, or the angle arctan(t / (1 - t)).
Run from data to noise, the prediction of the data becomes that of the noise.
"""

from torch import Tensor

from samplers.solver_registry import Path, Velocity, solver
from samplers.solvers.adams import Form, Scheme, adams

ANGLE = 1.0  # the pace of the clock arctan(t / (1 - t))


def form(ts: Tensor, sd: float, pace: float | None = None) -> Form:
    """Returns the form for data of standard deviation `sd`; the grid `ts` may rise or fall."""
    return Form.of(sd, pace, backward=bool(ts[-1] < ts[0]))


@solver(order=2)
def dpmpp_2m(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """Extrapolates the last two predictions of the data (Lu et al. 2022, DPM-Solver++ 2M)."""
    return adams(v, x, ts, Scheme(2, form=form(ts, 0)))


@solver(order=3)
def dpmpp_3m(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """Extrapolates the last three predictions of the data (DPM-Solver++ 3M)."""
    return adams(v, x, ts, Scheme(3, form=form(ts, 0)))


@solver(order=4, extra=Scheme(4).extra)
def deis(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """Integrates the last four predictions of the noise exactly (Zhang and Chen 2023, tAB3)."""
    return adams(v, x, ts, Scheme(4, form=form(ts, 0)))


@solver(order=2)
def unipc2(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """Predicts by two predictions of the data and corrects by three (Zhao et al. 2023, UniPC-2)."""
    return adams(v, x, ts, Scheme(2, 3, form(ts, 0, ANGLE)))


@solver(order=3)
def unipc3(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """Predicts by three predictions of the data and corrects by four (UniPC-3)."""
    return adams(v, x, ts, Scheme(3, 4, form(ts, 0, ANGLE)))


@solver(order=2)
def exponential(
    v: Velocity, x: Tensor, ts: Tensor, *, sd: float = 1.0, pace: float | None = None
) -> Path:
    """Extrapolates two values, integrating the flow of data of standard deviation sd exactly.

    sd = 0 extrapolates predictions of the data (`dpmpp_2m`), sd = 1 the velocity of the
    trigonometric path, sd = math.inf v itself (`ab2`). The clock is t, or arctan(pace t / (1 - t)).
    """
    return adams(v, x, ts, Scheme(2, form=form(ts, sd, pace)))


@solver(order=3)
def exponential3(
    v: Velocity, x: Tensor, ts: Tensor, *, sd: float = 1.0, pace: float | None = None
) -> Path:
    """Extrapolates three values; see `exponential`."""
    return adams(v, x, ts, Scheme(3, form=form(ts, sd, pace)))
