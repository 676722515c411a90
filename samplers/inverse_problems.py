"""Samples from the posterior of data given a linear measurement, with a flow as the prior."""

from __future__ import annotations

from numbers import Real

import torch
from torch import Tensor

from samplers.core import Velocity, transforms
from samplers.fields import Wrapped, first_call, fitting
from samplers.likelihood import refuse_detached
from samplers.states import one_tensor

EARLIEST = 1e-3  # time: before it a measurement says nothing of the noise


def posterior(
    v: Velocity, measure: Tensor, measured: Tensor, deviation: float, spread: float = 1.0
) -> Posterior:
    """Returns the velocity of data given measured = A data + N(0, deviation^2), for any solver.

    The data for a state x are approximated by N(d(x), r^2 I) with d = x + (1 - t) v and r^2 =
    spread^2 (1 - t)^2 / ((1 - t)^2 + (spread t)^2), as if the prior were N(0, spread^2 I). g is the
    gradient with respect to x of log N(measured; A d, r^2 A A^T + deviation^2 I): it is added to
    the score, so (1 - t) / t g is added to the velocity. Song et al. 2023 (PiGDM), Pokle et al.
    2024. It is exact for such a Gaussian prior and biased for others, more so the less Gaussian the
    data are at the times when g acts; a test measures this on mixtures.

    Args:
        measure: the matrix A, (M, D), acting on flattened samples.
        measured: (B, M) or (M,).
    """
    if not all(isinstance(one, Real | Tensor) and one > 0 for one in (deviation, spread)):
        raise ValueError(
            f"deviation is {deviation!r:.60} and spread {spread!r:.60}; expected positive numbers"
        )
    if not isinstance(measure, Tensor) or measure.ndim != 2 or measure.is_complex():
        raise TypeError(
            "measure is not a matrix; expected A of shape (M, D), which is multiplied with "
            "flattened samples"
        )
    if one_tensor(measured, "measured").shape[-1:] != measure.shape[:1] or measured.ndim > 2:
        raise ValueError(
            f"measured has shape {tuple(measured.shape)} and the matrix {tuple(measure.shape)}; "
            f"expected (B, {len(measure)}) or ({len(measure)},)"
        )
    return Posterior(v, measure, measured, deviation, spread)


class Posterior(Wrapped):
    """The velocity of `posterior`: v moved towards the measurement."""

    def __init__(
        self, v: Velocity, measure: Tensor, measured: Tensor, deviation: float, spread: float
    ):
        super().__init__(v)
        self.matrix, self.measured = measure, measured
        self.deviation, self.spread, self.followed = deviation, spread, False

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        if t.ndim:
            raise ValueError("posterior takes one time for the batch; choose another solver")
        if transforms():
            raise TypeError("posterior differentiates v itself; sample it outside of transforms")
        t = t.to(x.dtype).clamp(min=EARLIEST)
        with torch.inference_mode(False), torch.enable_grad():
            seen = (x.clone() if x.is_inference() else x.detach()).requires_grad_()
            k = fitting(first_call(self.v, seen, t), seen)
            if not self.followed:
                k = k.clone()  # the next call may use its memory
                refuse_detached(self.v, seen, t, k)
                self.followed = True
            data = (seen + (1 - t) * k).flatten(1)
            (g,) = torch.autograd.grad(data, seen, self._pull(data.detach(), t))
        return k.detach() + (1 - t) / t * g

    def _pull(self, data: Tensor, t: Tensor) -> Tensor:
        """Returns the gradient in d of log N(measured; A d, r^2 A A^T + deviation^2 I)."""
        a = self.matrix.to(data)
        r = self.spread**2 * (1 - t) ** 2 / ((1 - t) ** 2 + (self.spread * t) ** 2)
        noise = self.deviation**2 * torch.eye(len(a), dtype=a.dtype, device=a.device)
        missing = self.measured.to(data) - data @ a.T
        return torch.linalg.solve(r * a @ a.T + noise, missing.T).T @ a
