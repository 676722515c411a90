"""Losses of flow maps u(x, t, s) for any network of two times, one value per sample.

u(x, t, s) is the mean velocity from time t to s along the path through x at t; u(x, t, t) is the
velocity. States are (B, ...), times (B,), 0 is noise and 1 data. `v` is a velocity at (x, t),
usually the sample's own data - noise, whose mean is the field. Targets get no gradient.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from janusflow.utils.keywords import choice
from samplers.fields import per_sample

Map = Callable[[Tensor, Tensor, Tensor], Tensor]
DERIVATIVES = ("forward", "finite")
STEP = 2e-4  # of time, in finite differences: networks embed 1000 t, whose waves are that short


def column(t: Tensor, x: Tensor) -> Tensor:
    """Reshapes times (B,) to (B, 1, ..., 1), to broadcast with states (B, ...)."""
    return per_sample(t, x).to(x)


def squared(x: Tensor) -> Tensor:
    """Mean square per sample, (B, ...) -> (B,)."""
    return x.square().flatten(1).mean(dim=1)


def adaptive(loss: Tensor, power: float = 1.0, floor: float = 1e-3) -> Tensor:
    """loss / (loss + floor)^power, where the divisor gets no gradient. Geng et al. 2025, eq. 22."""
    return loss / (loss.detach() + floor).pow(power)


def along(
    u: Map, x: Tensor, t: Tensor, s: Tensor, v: Tensor, derivative: str = "forward"
) -> Tensor:
    """d/dt u(x_t, t, s) along a path with velocity v.

    It is computed by forward-mode differentiation, or as the central difference of two evaluations.
    Raises ValueError for another method.
    """
    if derivative == "forward":
        moving = (v, torch.ones_like(t))
        return torch.func.jvp(lambda x, t: u(x, t, s), (x, t), moving)[1]
    choice("derivative is", derivative, DERIVATIVES)
    ahead, behind = (t + STEP).clamp(max=1), (t - STEP).clamp(min=0)
    steps = [u(x + column(at - t, x) * v, at, s) for at in (ahead, behind)]
    return (steps[0] - steps[1]) / column(ahead - behind, x)


def flow_matching(u: Map, x: Tensor, t: Tensor, v: Tensor) -> Tensor:
    """|u(x, t, t) - v|^2, the map at s = t. Liu et al. 2022, arXiv 2209.03003."""
    return squared(u(x, t, t) - v)


def mean_flow(
    u: Map, x: Tensor, t: Tensor, s: Tensor, v: Tensor, derivative: str = "forward"
) -> Tensor:
    """|u(x, t, s) - (v + (s - t) du/dt)|^2, from d/dt of (s - t) u = x_s - x_t.

    Geng et al. 2025, arXiv 2505.13447, eq. 10, whose t and r are our t and s.
    """
    with torch.no_grad():
        target = v + column(s - t, x) * along(u, x, t, s, v, derivative)
    return squared(u(x, t, s) - target)


def improved_mean_flow(
    u: Map, x: Tensor, t: Tensor, s: Tensor, v: Tensor, derivative: str = "forward"
) -> Tensor:
    """|u(x, t, s) - (s - t) du/dt - v|^2 with du/dt along the network's own u(x, t, t).

    The term compared with v is then a function of (x, t, s) alone, so that its regression has the
    field as its mean. Geng et al. 2025, arXiv 2512.02012.
    """
    with torch.no_grad():
        own = u(x, t, t)
        bent = column(s - t, x) * along(u, x, t, s, own, derivative)
    return squared(u(x, t, s) - bent - v)


def alpha_flow(
    u: Map, x: Tensor, t: Tensor, s: Tensor, v: Tensor, alpha: float, lagged: Map | None = None
) -> Tensor:
    """|u(x, t, s) - (a v + (1 - a) u'(x + a (s - t) v, t + a (s - t), s))|^2 / a.

    a = 1 is flow matching of the whole step, a = 1/2 the shortcut's target, and a -> 0 has
    MeanFlow's gradient. u' is `lagged`, or u itself. Zhang et al. 2025, arXiv 2510.20771, eq. 7.
    Raises ValueError for a outside (0, 1].
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha is {alpha}; expected a number in (0, 1]")
    with torch.no_grad():
        middle = t + alpha * (s - t)
        ahead = (lagged or u)(x + column(middle - t, x) * v, middle, s) if alpha < 1 else v
        target = alpha * v + (1 - alpha) * ahead
    return squared(u(x, t, s) - target) / alpha


def shortcut(u: Map, x: Tensor, t: Tensor, s: Tensor, lagged: Map | None = None) -> Tensor:
    """|u(x, t, s) - (u'(x, t, m) + u'(x_m, m, s)) / 2|^2; x_m, half way, ends the first jump.

    It is used together with `flow_matching`. Frans et al. 2024, arXiv 2410.12557, eq. 5.
    """
    old = lagged or u
    with torch.no_grad():
        m = (t + s) / 2
        first = old(x, t, m)
        second = old(x + column(m - t, x) * first, m, s)
    return squared(u(x, t, s) - (first + second) / 2)


def consistency(
    u: Map, x: Tensor, t: Tensor, v: Tensor, step: float, lagged: Map | None = None
) -> Tensor:
    """|f(x, t) - f'(x + h v, t + h)|^2 / h with f(x, t) = x + (1 - t) u(x, t, 1) and h = `step`.

    h is shortened at t = 1, where f is the identity. Dividing by h keeps the gradient's size for
    small h. Song et al. 2023, arXiv 2303.01469, eq. 10.
    """
    one = torch.ones_like(t)
    with torch.no_grad():
        near = (t + step).clamp(max=1)
        y = x + column(near - t, x) * v
        target = y + column(1 - near, x) * (lagged or u)(y, near, one)
    mine = x + column(1 - t, x) * u(x, t, one)
    return squared(mine - target) / step


def straightness(noise: Tensor, data: Tensor, velocities: Tensor) -> Tensor:
    """Returns the mean over times of |v - (data - noise)|^2 / |data - noise|^2, (B,), of velocities
    (S, B, ...) on the paths.

    It is 0 for straight paths at constant speed. Liu et al. 2022, eq. 4, made relative.
    """
    way = data - noise
    return torch.stack([squared(v - way) for v in velocities]).mean(dim=0) / squared(way)
