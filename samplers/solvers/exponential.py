"""Multistep rules with a linear part removed, as samplers of diffusion models have it.

The papers extrapolate in log SNR, which is infinite at both ends of the straight path and makes
the first and last steps of first order; here the clock is t, or the angle arctan(t / (1 - t)).
Run from data to noise, the prediction of the data becomes that of the noise: the far end's.
"""

from torch import Tensor

from samplers.core import Path, Velocity, solver
from samplers.solvers.adams import Form, Scheme, adams

ANGLE = 1.0  # the pace of the clock arctan(t / (1 - t))


def form(ts: Tensor, sd: float, pace: float | None = None) -> Form:
    """The form for data of standard deviation sd on this grid, whichever way it runs."""
    return Form.of(sd, pace, backward=bool(ts[-1] < ts[0]))


@solver(order=2)
def dpmpp_2m(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """The last two predictions of the data, extrapolated (Lu et al. 2022, DPM-Solver++ 2M)."""
    return adams(v, x, ts, Scheme(2, form=form(ts, 0)))


@solver(order=3)
def dpmpp_3m(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """The last three predictions of the data (DPM-Solver++ 3M)."""
    return adams(v, x, ts, Scheme(3, form=form(ts, 0)))


@solver(order=4, extra=Scheme(4).extra)
def deis(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """The last four predictions, integrated exactly (Zhang and Chen 2023, tAB3)."""
    return adams(v, x, ts, Scheme(4, form=form(ts, 0)))


@solver(order=2)
def unipc2(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """Two predictions of the data ahead, three to correct with (Zhao et al. 2023, UniPC-2)."""
    return adams(v, x, ts, Scheme(2, 3, form(ts, 0, ANGLE)))


@solver(order=3)
def unipc3(v: Velocity, x: Tensor, ts: Tensor) -> Path:
    """Three predictions of the data ahead, four to correct with (UniPC-3)."""
    return adams(v, x, ts, Scheme(3, 4, form(ts, 0, ANGLE)))


@solver(order=2)
def exponential(
    v: Velocity, x: Tensor, ts: Tensor, *, sd: float = 1.0, pace: float | None = None
) -> Path:
    """Two values ahead, with the flow of data of standard deviation sd integrated exactly.

    sd = 0 extrapolates predictions of the data (`dpmpp_2m`), sd = 1 the velocity of the
    trigonometric path, sd = math.inf v itself (`ab2`). The clock is t, or arctan(pace t / (1 - t)).
    """
    return adams(v, x, ts, Scheme(2, form=form(ts, sd, pace)))


@solver(order=3)
def exponential3(
    v: Velocity, x: Tensor, ts: Tensor, *, sd: float = 1.0, pace: float | None = None
) -> Path:
    """Three values ahead; see `exponential`."""
    return adams(v, x, ts, Scheme(3, form=form(ts, sd, pace)))
