"""Stochastic solvers, which add noise during sampling and keep the distribution at every t.

On the linear path x_t = (1 - t) noise + t data the velocity gives the expected noise of a state,
E[noise | x] = x - t v, and with it the score, -(x - t v) / (1 - t). For any rate r(t) >= 0

    dx = v dt - r (x - t v) |dt| + sqrt(2 r (1 - t) |dt|) N(0, I)

keeps the marginals of the ODE, forwards and backwards; r is the rate at which the noise in the
state is replaced. r = 0 is the ODE, constant r the diffusion g^2 = 2 r (1 - t) of SiT (Ma et al.
2024), r = c / (1 - t) a constant g, r = 1 / t the memoryless one.

`generator` is a torch.Generator, or a list with one per sample, so that a sample does not depend on
its batch; noise is drawn on the generator's device. With `seed` s sample i gets a generator of its
own with seed s + i, new in each run.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from samplers.seeds import Generators as Generators
from samplers.solver_registry import Path, Velocity, advance, solver, steps
from samplers.solvers.transitions import RATES as RATES
from samplers.solvers.transitions import (
    TRANSITIONS,
    Rate,
    forward,
    kick,
    not_negative,
    rate_of,
    renoising,
)
from samplers.solvers.transitions import rate as rate


def _walk(v: Velocity, x: Tensor, ts: Tensor, draw: Callable, name: str, **options) -> Path:
    """Draws each state from the solver's transition."""
    for t, s in pairwise(ts.unbind()):
        mean, deviation = TRANSITIONS[name](x, v(x, t), t, s, **options)
        x = torch.add(mean, draw(), alpha=float(deviation))
        yield x


@solver(order=1, calls=1, stochastic=True)
def euler_maruyama(
    v: Velocity,
    x: Tensor,
    ts: Tensor,
    *,
    strength: float = 1.0,
    rate: str | Rate = "constant",
    generator: Generators = None,
) -> Path:
    """x + h v - r (x - t v) |h| + noise; weak order 1."""
    options = {"strength": strength, "rate": rate}
    return _walk(v, x, ts, draws(x, generator), "euler_maruyama", **options)


@solver(order=1, calls=1, stochastic=True)
def flow_grpo(
    v: Velocity, x: Tensor, ts: Tensor, *, strength: float = 0.7, generator: Generators = None
) -> Path:
    """Euler-Maruyama with g = strength sqrt((1 - t) / t); Liu et al. 2025 (Flow-GRPO), eq. 9.

    The rate strength^2 / (2 t) is infinite at t = 0; as in the published code the first step uses
    its end.
    """
    return _walk(v, x, ts, draws(x, generator), "flow_grpo", strength=strength)


@solver(order=1, calls=1, stochastic=True)
def cps(
    v: Velocity, x: Tensor, ts: Tensor, *, strength: float = 0.5, generator: Generators = None
) -> Path:
    """Predicts data and noise, then mixes them for s with a share of new noise.

    s data + (1 - s) (cos(a) noise + sin(a) new), a = strength pi / 2: the noise level is right at
    every time, whatever the step size. Wang and Yu 2025 (coefficients-preserving sampling).
    """
    return _walk(v, x, ts, draws(x, generator), "cps", strength=strength)


@solver(order=1, calls=1, stochastic=True)
def overshoot(
    v: Velocity, x: Tensor, ts: Tensor, *, strength: float = 1.0, generator: Generators = None
) -> Path:
    """An Euler step beyond s to o = s + strength (s - t), then noise back to s; Hu et al. 2024.

    For small steps this is the rate r = strength / t, for which Euler-Maruyama could not start at t
    = 0. o is at most 1.
    """
    return _walk(v, x, ts, draws(x, generator), "overshoot", strength=strength)


@solver(order=2, calls=2, stochastic=True)
def sde_heun(
    v: Velocity,
    x: Tensor,
    ts: Tensor,
    *,
    strength: float = 1.0,
    rate: str | Rate = "constant",
    generator: Generators = None,
) -> Path:
    """Heun's rule for the drift, with one draw of noise for both stages; weak order 2.

    That order requires a g that does not depend on the state; Kloeden and Platen 1992, section
    15.1.
    """
    r, draw = rate_of(rate, strength), draws(x, generator)
    for t, s, h in steps(ts):
        noise = float(kick(r, t, s)) * draw()
        now = _drift(v, x, t, h, r)
        then = _drift(v, advance(x, (h, now), (1, noise)), s, h, r)
        x = advance(x, (h / 2, now), (h / 2, then), (1, noise))
        yield x


@solver(order=2, calls=2, stochastic=True)
def churn(
    v: Velocity,
    x: Tensor,
    ts: Tensor,
    *,
    strength: float = 10.0,
    start: float = 0.0,
    stop: float = 1.0,
    generator: Generators = None,
) -> Path:
    """A small step back towards the noise, then a Heun step; Karras et al. 2022, Alg. 2.

    While start <= t <= stop the noise level (1 - t) / t first grows by the factor 1 + g with g =
    min(strength / steps, sqrt(2) - 1), but not beyond the grid's beginning.
    """
    forward("churn", ts[0], ts[-1])
    not_negative("strength", strength)
    draw, growth = draws(x, generator), min(strength / (len(ts) - 1), math.sqrt(2) - 1)
    for t, s, _ in steps(ts):
        more = growth if start <= t <= stop else 0.0
        back = torch.maximum(t / (1 + more * (1 - t)), ts[0])
        x = renoise(x, t, back, draw())
        h = float(s - back)
        k = v(x, back)
        x = advance(x, (h / 2, k), (h / 2, v(advance(x, (h, k)), s)))
        yield x


def _drift(v: Velocity, x: Tensor, t: Tensor, h: float, r: Rate) -> Tensor:
    k = v(x, t)
    return k - math.copysign(float(r(t)), h) * (x - float(t) * k)


def renoise(x: Tensor, t: Tensor, back: Tensor, fresh: Tensor) -> Tensor:
    """Moves a state from t back to the earlier time `back`: scales it down and adds noise."""
    shrink, lacking = renoising(t, back)
    return shrink * x + float(lacking) * fresh


def draws(x: Tensor, generator: Generators) -> Callable[[], Tensor]:
    """Returns standard normal noise like x; with a list, each sample uses its own generator."""
    if generator is None or isinstance(generator, torch.Generator):
        return lambda: _normal(x, generator)
    if not isinstance(generator, Sequence):
        raise TypeError(
            f"the generator is {type(generator).__name__}; pass a torch.Generator, or one each"
        )
    if len(generator) != len(x):
        raise ValueError(f"{len(generator)} generators for {len(x)} samples; give one, or one each")
    return lambda: torch.cat([_normal(x[:1], g) for g in generator])


def _normal(x: Tensor, generator: torch.Generator | None) -> Tensor:
    device = x.device if generator is None else generator.device
    return torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)
