"""The logarithm of the density that a flow gives to data.

Along dx = v dt the log-density changes by -div v dt, so that

    log p(data) = log N(noise; 0, I) - integral of div v over t from 0 to 1,

with the noise found by integrating backwards; Chen et al. 2018. State and integral go through the
solver together, and v is differentiated by reverse mode alone, which every attention kernel has.
v must treat each sample for itself, as networks in eval mode do.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from samplers.core import Solver, Times, Velocity, find, sample, times


@dataclass(frozen=True)
class LogLikelihood:
    """log p(data) in nats (B,), its standard error (B,) over probes, and the noise (B, ...).

    The error is zero for the exact trace. It does not know the error of the solver: compare grids.
    """

    value: Tensor
    error: Tensor
    noise: Tensor

    @property
    def bits_per_dimension(self) -> Tensor:
        return -self.value / (self.noise[0].numel() * math.log(2))


def log_likelihood(
    v: Velocity,
    data: Tensor,
    ts: Times,
    solver: str | Solver = "heun",
    *,
    probes: int | None = None,
    generator: torch.Generator | None = None,
    **options,
) -> LogLikelihood:
    """log p(data) for data of any shape (B, ...), the grid ts running from noise to data.

    Without `probes` the trace of the Jacobian is exact and costs as many backward passes per call
    as a sample has elements. With them it is Hutchinson's estimate, the mean of e . J e over that
    many random signs e drawn once for the run, one backward pass each; Grathwohl et al. 2019.
    """
    shape, size, chosen = data.shape, data[0].numel(), find(solver, **options)
    signs = None if probes is None else _signs(probes, data, generator)

    def augmented(z: Tensor, t: Tensor) -> Tensor:
        x, t = z[:, :size].reshape(shape), t.reshape(-1, *[1] * (len(shape) - 1)) if t.ndim else t
        k, divergence = _exact(v, x, t) if signs is None else _estimated(v, x, t, signs)
        return torch.cat((k.reshape(len(k), -1), divergence), 1)

    start = torch.cat((data.reshape(len(data), -1), data.new_zeros(len(data), probes or 1)), 1)
    end = sample(augmented, start, times(ts, chosen).flip(0), chosen)
    noise, change = end[:, :size], end[:, size:]
    prior = -0.5 * (noise.square().sum(1) + size * math.log(2 * math.pi))
    error = change.std(1) / math.sqrt(probes) if probes else torch.zeros_like(prior)
    return LogLikelihood(prior + change.mean(1), error, noise.reshape(shape))


def _exact(v: Velocity, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """v(x, t) and its divergence (B, 1), one backward pass per element of a sample."""
    x, k = _differentiable(v, x, t)
    with torch.enable_grad():
        rows = k.reshape(len(k), -1).sum(0).unbind()
    slopes = (torch.autograd.grad(row, x, retain_graph=True)[0] for row in rows)
    diagonal = [slope.reshape(len(x), -1)[:, i] for i, slope in enumerate(slopes)]
    return k.detach(), torch.stack(diagonal, 1).sum(1, keepdim=True)


def _estimated(v: Velocity, x: Tensor, t: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
    """v(x, t) and e . J e for each of the probes, (B, probes)."""
    x, k = _differentiable(v, x, t)
    products = [torch.autograd.grad(k, x, e, retain_graph=True)[0] * e for e in signs]
    return k.detach(), torch.stack([p.reshape(len(x), -1).sum(1) for p in products], 1)


def _differentiable(v: Velocity, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        k = v(x, t).to(x.dtype)
        return x, k if k.requires_grad else k + 0 * x  # a velocity that ignores the state


def _signs(probes: int, data: Tensor, generator: torch.Generator | None) -> Tensor:
    if probes < 2:
        raise ValueError(f"{probes} probes give no error bar; take at least 2, or None for exact")
    device = data.device if generator is None else generator.device
    bits = torch.randint(2, (probes, *data.shape), generator=generator, device=device)
    return (2 * bits - 1).to(data)
