"""The distribution of one step of a stochastic solver with one evaluation: a Gaussian.

A transition maps (x, velocity, t, s) to the mean of the state at s and its standard deviation.
Solvers draw from it; policy gradients need its density (`samplers.step_log_prob`). Times are 0-dim,
or (B, 1, ..., 1) per sample; the deviation has their shape.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Rate = Callable[[Tensor], Tensor]
Gaussian = tuple[Tensor, Tensor]  # mean and standard deviation

RATES: dict[str, Callable[[float], Rate]] = {}
TRANSITIONS: dict[str, Callable[..., Gaussian]] = {}


def rate(make: Callable[[float], Rate]) -> Callable[[float], Rate]:
    """A decorator: registers strength -> (t -> r) in RATES; r must be finite on [0, 1]."""
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
    """r = 4 strength t (1 - t): zero at both ends, `strength` in the middle."""
    return lambda t: 4 * strength * t * (1 - t)


def transition(step: Callable[..., Gaussian]) -> Callable[..., Gaussian]:
    """A decorator that registers a transition under its function's name, which is its solver's."""
    TRANSITIONS[step.__name__] = step
    return step


@transition
def euler_maruyama(
    x: Tensor, k: Tensor, t: Tensor, s: Tensor, strength: float = 1.0, rate: str | Rate = "constant"
) -> Gaussian:
    """x + h v - r (x - t v) |h|, with the integral of g^2 by the midpoint of the step."""
    r, h = rate_of(rate, strength), s - t
    return x + h * k - r(t) * h.abs() * (x - t * k), kick(r, t, s)


@transition
def flow_grpo(x: Tensor, k: Tensor, t: Tensor, s: Tensor, strength: float = 0.7) -> Gaussian:
    """Euler-Maruyama with r = strength^2 / (2 t), evaluated at the step's beginning."""
    forward("flow_grpo", t, s)
    not_negative("strength", strength)
    r, h = strength**2 / 2 / torch.where(t == 0, s, t), s - t
    return x + h * k - r * h * (x - t * k), (2 * r * (1 - t) * h).sqrt()


@transition
def cps(x: Tensor, k: Tensor, t: Tensor, s: Tensor, strength: float = 0.5) -> Gaussian:
    """s data + (1 - s) cos(a) noise, and (1 - s) sin(a), for a = strength pi / 2."""
    if not 0 <= strength <= 1:
        raise ValueError(f"the strength of cps is {strength}; choose it from 0 (none) to 1")
    angle = strength * math.pi / 2
    data, noise = x + (1 - t) * k, x - t * k
    return s * data + (1 - s) * math.cos(angle) * noise, (1 - s) * math.sin(angle)


@transition
def overshoot(x: Tensor, k: Tensor, t: Tensor, s: Tensor, strength: float = 1.0) -> Gaussian:
    """An Euler step to o = s + strength (s - t), at most 1, then noise back to s."""
    forward("overshoot", t, s)
    not_negative("strength", strength)
    past = (s + strength * (s - t)).clamp(max=1.0)
    shrink, fresh = renoising(past, s)
    return shrink * (x + (past - t) * k), fresh


def renoising(t: Tensor, back: Tensor) -> Gaussian:
    """Returns the factor and the noise's deviation that move a state from t back to `back`."""
    shrink = torch.where(back == t, torch.ones_like(t), back / t)
    lacking = (1 - back) ** 2 - (shrink * (1 - t)) ** 2
    return shrink, lacking.clamp(min=0).sqrt()


def kick(r: Rate, t: Tensor, s: Tensor) -> Tensor:
    """Deviation of the noise from t to s: the integral of g^2 = 2 r (1 - t), by the midpoint."""
    middle = (t + s) / 2
    return (2 * r(middle) * (1 - middle) * (s - t).abs()).sqrt()


def rate_of(rate: str | Rate, strength: float) -> Rate:
    """Returns the function t -> r of a name, or of a function for strength 1."""
    not_negative("strength", strength)
    if isinstance(rate, str) and rate not in RATES:
        raise ValueError(f"no rate of noise named {rate!r}; choose one of {', '.join(RATES)}")
    r = RATES[rate](strength) if isinstance(rate, str) else lambda t: strength * rate(t)

    def checked(t: Tensor) -> Tensor:
        value = torch.as_tensor(r(t), device=t.device)
        if value.ndim == 0:
            not_negative("rate", float(value))
        return value

    return checked


def not_negative(name: str, value: float) -> float:
    if not 0 <= value < math.inf:
        raise ValueError(f"the {name} of a stochastic solver is {value}; give a number >= 0")
    return value


def forward(name: str, t: Tensor, s: Tensor) -> None:
    """Raises ValueError unless the step goes towards the data."""
    if bool((s < t).any()):
        raise ValueError(f"{name} needs an increasing grid, from noise to data; give one")
