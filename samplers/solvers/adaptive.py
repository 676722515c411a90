"""Adaptive solvers of torchdiffeq, restricted to the grid and to a number of evaluations.

A step ends at every time of the grid, so the grid [0, 1] leaves them the most freedom. A step is
accepted if the RMS of error / (atol + rtol |x|) over the whole batch is at most 1, so a sample's
result depends on the others; the solvers of `adaptive_per_sample` control each sample alone.
"""

from itertools import pairwise
from numbers import Real

import torch
from torch import Tensor

from samplers.fields import widest
from samplers.solver_registry import Path, Velocity, solver


def _register(method: str, order: int, calls: int, summary: str) -> None:
    def path(
        v: Velocity,
        x: Tensor,
        ts: Tensor,
        *,
        rtol: float = 1e-5,
        atol: float = 1e-5,
        max_calls: int = 10_000,
    ) -> Path:
        check_tolerances(rtol, atol, x.dtype)
        if torch._C._functorch.peek_interpreter_stack() is not None:
            raise TypeError(
                f"{method} is torchdiffeq's, which torch.func's transforms cannot enter; choose "
                "dopri5_per_sample or bosh3_per_sample, or differentiate by torch.autograd"
            )
        field = Limited(method, v, ts, max_calls)
        for t, s in pairwise(ts):
            x = _torchdiffeq(field, x, t, s, rtol, atol)
            yield x

    path.__name__ = method
    path.__doc__ = f"{summary}, through torchdiffeq, with one step size for the whole batch."
    solver(order=order, calls=calls, extra=2, adaptive=True)(path)


class Limited:
    """A velocity that is never evaluated outside the grid or more often than the limit.

    torchdiffeq's trial evaluation for the first step size, and times rounded to the state's dtype,
    would be outside.
    """

    def __init__(self, name: str, v: Velocity, ts: Tensor, limit: int):
        if isinstance(limit, bool) or not isinstance(limit, Real):
            raise TypeError(f"max_calls is {limit!r:.60}; expected a number of evaluations")
        self.name, self.v, self.limit, self.calls = name, v, limit, 0
        self.start, self.stop = float(ts.min()), float(ts.max())

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.t = t.clamp(self.start, self.stop)
        if self.calls >= self.limit:
            raise RuntimeError(
                f"{self.name} reached its limit of {self.limit} evaluations near t = "
                f"{self.when()}; loosen rtol and atol, or raise max_calls"
            )
        self.calls += 1
        self.last = self.v(x, self.t)
        return self.last

    def when(self) -> str:
        return f"{self.t.min():.6g}"


def _torchdiffeq(
    field: Limited, x: Tensor, t: Tensor, s: Tensor, rtol: float, atol: float
) -> Tensor:
    """Returns the state at s; NaN if a velocity is not finite, for the caller to find.

    Each interval is a call of its own: with several stops, torchdiffeq runs past the later ones
    after a step that happens to end on one.
    """
    from torchdiffeq import odeint

    def swapped(t: Tensor, x: Tensor) -> Tensor:
        return field(x, t.to("cpu", torch.float64))

    times = torch.stack((t, s)).to(x.device, widest(x.device))
    options = {"step_t": times[1:], "dtype": times.dtype}
    try:
        return odeint(swapped, x, times, rtol=rtol, atol=atol, method=field.name, options=options)[
            -1
        ]
    except AssertionError as error:
        if not field.last.isfinite().all():
            return torch.full_like(x, torch.nan)
        raise underflow(field, rtol, atol, x.dtype) from error


_register("dopri5", 5, 6, "Dormand and Prince 5(4)")
_register("dopri8", 8, 13, "Dormand and Prince 8(7)")
_register("bosh3", 3, 3, "Bogacki and Shampine 3(2)")
_register("fehlberg2", 2, 2, "Fehlberg 2(1), whose error is some 100 times the tolerance")
_register("adaptive_heun", 2, 1, "Heun and Euler 2(1)")


def check_tolerances(rtol: float, atol: float, dtype: torch.dtype) -> None:
    if not all(isinstance(one, Real | Tensor) and one >= 0 for one in (rtol, atol)):
        raise ValueError(f"rtol is {rtol!r} and atol {atol!r}; expected numbers of at least 0")
    finest = 10 * torch.finfo(dtype).eps
    if rtol + atol < finest:
        raise ValueError(
            f"rtol = {rtol} and atol = {atol} are finer than {dtype} resolves; "
            f"let them add up to {finest:.1e}, or start from noise of a wider dtype"
        )


def underflow(field: Limited, rtol: float, atol: float, dtype: torch.dtype) -> RuntimeError:
    return RuntimeError(
        f"{field.name} cannot meet rtol = {rtol} and atol = {atol} in {dtype}: its step vanishes "
        f"near t = {field.when()}; loosen them, or look there for a jump of the velocity"
    )
