"""The log-density that a flow assigns to data.

Along dx = v dt the log-density changes by -div v dt, so

    log p(data) = log N(noise; 0, I) - integral of div v over t from 0 to 1,

where the noise is found by integrating backwards; Chen et al. 2018. State and integral are solved
together, and v is differentiated in reverse mode only, which every attention kernel supports. v
must treat each sample independently, as networks in eval mode do.
"""

import math
import warnings
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from samplers.core import Solver, Times, Velocity, find, sample, times, transforms
from samplers.fields import (
    WROTE,
    Wrapped,
    first_call,
    fitting,
    jumps_of,
    per_sample,
    time_shift_of,
)
from samplers.seeds import generators
from samplers.states import one_tensor

NEAR = 1e-6  # how far from 0 and 1 a grid may end


@dataclass(frozen=True, eq=False)
class LogLikelihood:
    """log p(data) in nats (B,), its standard error over probes (B,), and the noise (B, ...).

    The standard error is zero for the exact trace. It does not include the solver's error: compare
    grids for that.
    """

    value: Tensor
    error: Tensor
    noise: Tensor

    @property
    def bits_per_dimension(self) -> Tensor:
        return -self.value / (math.prod(self.noise.shape[1:]) * math.log(2))


def log_likelihood(
    v: Velocity,
    data: Tensor,
    ts: Times,
    solver: str | Solver = "heun",
    *,
    probes: int | None = None,
    generator: torch.Generator | None = None,
    seed: int | None = None,
    **options,
) -> LogLikelihood:
    """Returns log p(data) for data of any shape (B, ...); the grid ts runs from noise to data.

    Without `probes` the trace of the Jacobian is exact and takes as many backward passes per call
    as a sample has elements. With them it is Hutchinson's estimate, the mean of e . J e over that
    many random sign vectors e drawn once per run from `generator` or `seed`, with one backward pass
    each; Grathwohl et al. 2019.

    The result can be differentiated with respect to the data and the parameters of v, through
    second derivatives of v; that keeps every call's graph, so use torch.no_grad() for the value
    alone. Raises ValueError for a grid that does not rise from 0 to 1, for stochastic solvers,
    which cannot recover the data's noise, and for a velocity that is detached from the state.
    """
    refuse_without_density(v, data)
    if transforms() & {"Vmap", "Jvp"}:
        raise TypeError(
            "log_likelihood differentiates v backwards, which torch.func's vmap and jvp forbid; "
            "give it all samples as one batch (B, ...), and differentiate its value by autograd"
        )
    drawn = generators(generator, None if seed is None else [seed], 1, "run")
    drawn = drawn[0] if isinstance(drawn, list) else drawn
    if probes is None and drawn is not None:
        name = "generator" if seed is None else "seed"
        why = "without probes the trace is exact; give probes too, or leave it out"
        warnings.warn(f"{name} changes nothing: {why}", stacklevel=2)
    chosen = find(solver, **options)
    if chosen.stochastic or chosen.maps:
        raise ValueError(
            f"{chosen.name} cannot be inverted, so it has no likelihood; choose a deterministic "
            "solver such as heun or dopri5"
        )
    ts = times(ts, chosen, jumps_of(v), time_shift_of(v))
    if abs(float(ts[0])) > NEAR or abs(float(ts[-1]) - 1) > NEAR:
        raise ValueError(
            f"the grid of a likelihood rises from 0 (noise) to 1 (data); this goes from "
            f"{float(ts[0]):g} to {float(ts[-1]):g}"
        )
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False), torch.no_grad():
            return _integrated(v, data.clone(), ts.clone(), chosen, probes, drawn)
    return _integrated(v, data, ts, chosen, probes, drawn)


def refuse_without_density(v: Velocity, data: Tensor) -> None:
    """Raises TypeError or ValueError for data and fields to which no density belongs."""
    one_tensor(data, "the data")
    if not data.ndim or 0 in data.shape[1:]:
        raise ValueError(
            f"the data has shape {tuple(data.shape)}; expected samples with elements, (B, ...)"
        )
    if getattr(v, "project", None) is not None:
        raise ValueError(
            "inpainting leads states back to the given data, which is no flow and has no density; "
            "pass the velocity inside"
        )


def _integrated(
    v: Velocity,
    data: Tensor,
    ts: Tensor,
    solver: Solver,
    probes: int | None,
    generator: torch.Generator | None,
) -> LogLikelihood:
    """Integrates state and divergence back to the noise together."""
    data = data.to(torch.promote_types(data.dtype, torch.float32))
    size = math.prod(data.shape[1:])
    signs = None if probes is None else _signs(probes, data, generator)
    start = torch.cat((data.reshape(len(data), size), data.new_zeros(len(data), probes or 1)), 1)
    end = sample(_Augmented(v, data.shape, signs), start, ts.flip(0), solver)
    noise, change = end[:, :size], end[:, size:]
    prior = -0.5 * (noise.square().sum(1) + size * math.log(2 * math.pi))
    error = change.std(1) / math.sqrt(probes) if probes else torch.zeros_like(prior)
    return LogLikelihood(prior + change.mean(1), error.detach(), noise.reshape(data.shape))


class _Augmented(Wrapped):
    """The velocity of the state (B, D) together with its divergence (B, 1 or probes)."""

    def __init__(self, v: Velocity, shape: torch.Size, signs: Tensor | None):
        super().__init__(v)
        self.shape, self.signs, self.followed = shape, signs, False

    def __call__(self, z: Tensor, t: Tensor) -> Tensor:
        size = math.prod(self.shape[1:])
        x = z[:, :size].reshape(self.shape)
        t = per_sample(t, x) if t.ndim else t
        k, divergence = self._divergence(x, t)
        return torch.cat((k.reshape(len(k), size), divergence), 1)

    def _divergence(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns v(x, t) and its divergence, with their graphs if gradients are recorded."""
        follow = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x if follow and x.requires_grad else x.detach().requires_grad_()
            k = fitting(self.v(x, t), x) if self.followed else self._first(x, t)
            k = k if k.requires_grad else k + 0 * x  # a velocity that ignores the state
            divergence = _exact(k, x, follow) if self.signs is None else self._probed(k, x, follow)
        return (k, divergence) if follow else (k.detach(), divergence.detach())

    def _first(self, x: Tensor, t: Tensor) -> Tensor:
        """Returns v(x, t) after refusing what would give a wrong divergence in silence."""
        try:
            k = fitting(first_call(self.v, x, t), x).clone()  # the next call may use its memory
        except (RuntimeError, TypeError) as error:
            if "in-place" in str(error):
                raise ValueError(WROTE) from error
            raise
        refuse_detached(self.v, x, t, k)
        self.followed = True
        return k

    def _probed(self, k: Tensor, x: Tensor, follow: bool) -> Tensor:
        """Returns e . J e for each of the probes, (B, probes)."""
        products = [_slope(k, x, e, follow) * e for e in self.signs]
        return torch.stack([p.reshape(len(x), -1).sum(1) for p in products], 1)


def refuse_detached(v: Velocity, x: Tensor, t: Tensor, k: Tensor) -> None:
    """Raises ValueError if k = v(x, t) depends on x without a gradient to it.

    Its divergence would count as zero. One more call of v tells it from a velocity that ignores x.
    """
    if k.requires_grad:
        (slope,) = torch.autograd.grad(k.sum(), x, retain_graph=True, allow_unused=True)
        if slope is not None:
            return
    with torch.no_grad():
        if torch.equal(v(x + 1, t).to(k.dtype), k):
            return
    raise ValueError(
        "v(x, t) carries no gradient to x, so its Jacobian cannot be found; leave torch.no_grad "
        "and detach() out of v"
    )


def _exact(k: Tensor, x: Tensor, follow: bool) -> Tensor:
    """Returns the trace of the Jacobian (B, 1), with one backward pass per element of a sample."""
    rows = k.reshape(len(k), -1).sum(0).unbind()
    slopes = (_slope(row, x, None, follow) for row in rows)
    diagonal = [slope.reshape(len(x), -1)[:, i] for i, slope in enumerate(slopes)]
    return torch.stack(diagonal, 1).sum(1, keepdim=True)


def _slope(k: Tensor, x: Tensor, weight: Tensor | None, follow: bool) -> Tensor:
    """Returns the gradient of (weight times) k, zero if k does not depend on x."""
    (slope,) = torch.autograd.grad(
        k, x, weight, retain_graph=True, create_graph=follow, materialize_grads=True
    )
    return slope


def _signs(probes: int, data: Tensor, generator: torch.Generator | None) -> Tensor:
    if isinstance(probes, bool) or not isinstance(probes, Integral) or probes < 2:
        raise ValueError(
            f"probes is {probes!r:.40}; expected a whole number of at least 2, which an error bar "
            "needs, or None for the exact trace"
        )
    device = data.device if generator is None else generator.device
    bits = torch.randint(2, (probes, *data.shape), generator=generator, device=device)
    return (2 * bits - 1).to(data)
