"""Stochastic solvers: noise goes in along the way, and the distribution at every t stays the same.

On the linear path x_t = (1 - t) noise + t data the velocity gives the noise a state seems to hold,
E[noise | x] = x - t v, and with it the score, -(x - t v) / (1 - t). For any rate r(t) >= 0

    dx = v dt - r (x - t v) |dt| + sqrt(2 r (1 - t) |dt|) N(0, I)

keeps the marginals of the ODE, forwards and backwards: r is how fast the noise in the state is
replaced by fresh noise. r = 0 is the ODE, constant r the diffusion g^2 = 2 r (1 - t) of SiT (Ma et
al. 2024), r = c / (1 - t) a constant g, r = 1 / t the memoryless one.

`generator` is a torch.Generator, or a list with one per sample, so that a batch gives what its
samples give one by one; noise is drawn on the generator's device.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from samplers.core import Path, Velocity, advance, solver, steps

Rate = Callable[[Tensor], Tensor]
Generators = torch.Generator | Sequence[torch.Generator] | None

RATES: dict[str, Callable[[float], Rate]] = {}


def rate(make: Callable[[float], Rate]) -> Callable[[float], Rate]:
    """Registers a function strength -> (t -> r) in RATES; r must stay finite on [0, 1]."""
    RATES[make.__name__] = make
    return make


@rate
def constant(strength: float) -> Rate:
    return lambda t: strength * torch.ones_like(t)


@rate
def falling(strength: float) -> Rate:
    """r = strength (1 - t): g falls linearly, and the last steps are nearly deterministic."""
    return lambda t: strength * (1 - t)


@rate
def rising(strength: float) -> Rate:
    return lambda t: strength * t


@rate
def middle(strength: float) -> Rate:
    """r = 4 strength t (1 - t): zero at both ends, `strength` half way."""
    return lambda t: 4 * strength * t * (1 - t)


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
    """x + h v - r (x - t v) |h| + kick; weak order 1."""
    r, draw = _rate(rate, strength), _draw(x, generator)
    for t, s, h in steps(ts):
        x = advance(x, (h, _drift(v, x, t, h, r)), (_kick(r, t, s), draw()))
        yield x


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
    """Heun's rule for the drift, one kick of noise for both its stages; weak order 2.

    That order needs a g that does not depend on the state; Kloeden and Platen 1992, section 15.1.
    """
    r, draw = _rate(rate, strength), _draw(x, generator)
    for t, s, h in steps(ts):
        kick = _kick(r, t, s) * draw()
        now = _drift(v, x, t, h, r)
        then = _drift(v, advance(x, (h, now), (1, kick)), s, h, r)
        x = advance(x, (h / 2, now), (h / 2, then), (1, kick))
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
    """A little back towards the noise, then a step of Heun; Karras et al. 2022, Alg. 2.

    While start <= t <= stop the noise level (1 - t) / t first grows by the factor 1 + g with
    g = min(strength / steps, sqrt(2) - 1), though never to before the grid's beginning.
    """
    _forward("churn", ts)
    _not_negative("strength", strength)
    draw, growth = _draw(x, generator), min(strength / (len(ts) - 1), math.sqrt(2) - 1)
    for t, s, _ in steps(ts):
        more = growth if start <= t <= stop else 0.0
        back = torch.maximum(t / (1 + more * (1 - t)), ts[0])
        x = _renoise(x, t, back, draw())
        h = float(s - back)
        k = v(x, back)
        x = advance(x, (h / 2, k), (h / 2, v(advance(x, (h, k)), s)))
        yield x


@solver(order=1, calls=1, stochastic=True)
def overshoot(
    v: Velocity, x: Tensor, ts: Tensor, *, strength: float = 1.0, generator: Generators = None
) -> Path:
    """An Euler step past s to o = s + strength (s - t), then noise back to s; Hu et al. 2024.

    In small steps this is the rate r = strength / t, which no step of Euler-Maruyama from t = 0
    could take. o stays within the grid.
    """
    _forward("overshoot", ts)
    _not_negative("strength", strength)
    draw = _draw(x, generator)
    for t, s, h in steps(ts):
        past = torch.minimum(s + strength * h, ts[-1])
        x = _renoise(advance(x, (float(past - t), v(x, t))), past, s, draw())
        yield x


def _drift(v: Velocity, x: Tensor, t: Tensor, h: float, r: Callable[[Tensor], float]) -> Tensor:
    k = v(x, t)
    return k - math.copysign(r(t), h) * (x - float(t) * k)


def _kick(r: Callable[[Tensor], float], t: Tensor, s: Tensor) -> float:
    """Deviation of the noise from t to s: the integral of g^2 = 2 r (1 - t), by the middle."""
    middle = (t + s) / 2
    return math.sqrt(2 * r(middle) * float(1 - middle) * float(abs(s - t)))


def _renoise(x: Tensor, t: Tensor, back: Tensor, fresh: Tensor) -> Tensor:
    """A state of time t as one of the earlier time `back`: shrunk, and filled up with noise."""
    if back == t:
        return x
    shrink = float(back / t)
    lacking = float(1 - back) ** 2 - (shrink * float(1 - t)) ** 2
    return shrink * x + math.sqrt(max(lacking, 0.0)) * fresh


def _rate(rate: str | Rate, strength: float) -> Callable[[Tensor], float]:
    _not_negative("strength", strength)
    if isinstance(rate, str) and rate not in RATES:
        raise ValueError(f"no rate of noise named {rate!r}; choose one of {', '.join(RATES)}")
    r = RATES[rate](strength) if isinstance(rate, str) else lambda t: strength * rate(t)
    return lambda t: _not_negative("rate", float(r(t)))


def _not_negative(name: str, value: float) -> float:
    if not 0 <= value < math.inf:
        raise ValueError(f"the {name} of a stochastic solver is {value}; give a number >= 0")
    return value


def _forward(name: str, ts: Tensor) -> None:
    if ts[0] > ts[-1]:
        raise ValueError(f"{name} only goes from noise to data; give an increasing grid")


def _draw(x: Tensor, generator: Generators) -> Callable[[], Tensor]:
    """Standard normal noise like x, each sample from its own generator if there is a list."""
    if generator is None or isinstance(generator, torch.Generator):
        return lambda: _normal(x, generator)
    if len(generator) != len(x):
        raise ValueError(f"{len(generator)} generators for {len(x)} samples; give one, or one each")
    return lambda: torch.cat([_normal(x[:1], g) for g in generator])


def _normal(x: Tensor, generator: torch.Generator | None) -> Tensor:
    device = x.device if generator is None else generator.device
    return torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)
