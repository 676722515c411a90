"""Fields with known endpoints: in closed form, or integrated to a tolerance of 1e-10.

All but the first three are the exact velocities of the straight path x = (1 - t) noise + t data for
some data distribution. `PROBLEMS[name](**options)` makes one; its state is (B, D) in float64.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

from samplers.comparison import endpoints
from samplers.core import Velocity
from samplers.registry import old_names


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A velocity, the noise it starts from, and its endpoints at t = 1."""

    name: str
    dim: int
    velocity: Velocity
    start: Callable[[Tensor], Tensor] = lambda z: z  # from standard normal to the noise wanted
    exact: Callable[[Tensor], Tensor] | None = None
    known: dict[bytes, Tensor] = field(default_factory=dict, repr=False)

    def noise(self, n: int, seed: int = 0) -> Tensor:
        """Returns n states at t = 0, (n, D): standard normal unless the problem says otherwise."""
        return self.start(normal(n, self.dim, seed=seed))

    def solution(self, noise: Tensor) -> Tensor:
        """Returns the states at t = 1, (n, D), in closed form or integrated once per noise."""
        if self.exact is not None:
            return self.exact(noise)
        key = noise.numpy().tobytes()
        if key not in self.known:
            self.known[key] = reference(self.velocity, noise)
        return self.known[key]

    def __reduce__(self) -> tuple:
        """Pickles a registered problem by its name and arguments, without its closures."""
        return getattr(self, "_written", None) or super().__reduce_ex__(2)


PROBLEMS: dict[str, Callable[..., Problem]] = {}


def problem(make: Callable[..., Problem]) -> Callable[..., Problem]:
    """A decorator that registers a problem's factory under its function's name."""

    @functools.wraps(make)
    def written(*args: Any, **options: Any) -> Problem:
        made = make(*args, **options)  # no field, so that a changed copy is not taken for it
        object.__setattr__(made, "_written", (_remade, (make.__name__, args, options)))
        return made

    PROBLEMS[make.__name__] = written
    return written


def _remade(name: str, args: tuple, options: dict) -> Problem:
    return PROBLEMS[name](*args, **options)


def reference(v: Velocity, noise: Tensor) -> Tensor:
    """Returns the state at t = 1 in float64; see `endpoints`."""
    return endpoints(v, noise.double(), 1e-10)


@problem
def bend() -> Problem:
    """v = -2 t x^2 from x > 0, ending at x / (1 + x); it reveals wrong stages and weights."""
    return Problem(
        name="bend",
        dim=1,
        velocity=lambda x, t: -2 * t * x * x,
        exact=lambda x: x / (1 + x),
        start=lambda z: (z / 2).exp(),
    )


@problem
def rotation(angle: float = 2.0) -> Problem:
    """v = angle (-y, x): a circle at constant speed."""
    turn = torch.tensor([[0, 1], [-1, 0]], dtype=torch.float64) * angle
    return Problem(
        name=f"rotation({angle:g})",
        dim=2,
        velocity=lambda x, _: x @ turn,
        exact=lambda x: x @ torch.linalg.matrix_exp(turn),
    )


@problem
def straight(dim: int = 2, seed: int = 0) -> Problem:
    """A constant velocity, for which one step of any solver is exact."""
    v = normal(dim, seed=seed)
    return Problem(
        name=f"straight({dim})",
        dim=dim,
        velocity=lambda x, _: v.expand_as(x),
        exact=lambda x: x + v,
    )


@problem
def gaussian(dim: int = 16, seed: int = 0, low: float = 0.1, high: float = 2.0) -> Problem:
    """Data N(mean, C), where C has standard deviations from low to high along random axes.

    Along an axis of standard deviation s the state is N(t mean, (1 - t)^2 + t^2 s^2). The velocity
    is linear, and the flow ends at mean + C^(1/2) noise.
    """
    mean = normal(dim, seed=seed)
    axes = torch.linalg.qr(normal(dim, dim, seed=seed + 1))[0]
    s = torch.logspace(math.log10(low), math.log10(high), dim, dtype=torch.float64)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        slope = (t * s**2 - (1 - t)) / ((1 - t) ** 2 + t**2 * s**2)
        return mean + ((x - t * mean) @ axes * slope) @ axes.T

    return Problem(
        name=f"gaussian({dim})",
        dim=dim,
        velocity=velocity,
        exact=lambda x: mean + (x @ axes * s) @ axes.T,
    )


@problem
def mixture(dim: int = 2, modes: int = 8, seed: int = 0, spread: float = 0.2) -> Problem:
    """`modes` Gaussians of standard deviation `spread` whose means are standard normal."""
    return Problem(
        name=f"mixture({dim})",
        dim=dim,
        velocity=GaussianMixture(normal(modes, dim, seed=seed), spread),
    )


@problem
def guided(
    dim: int = 64, modes: int = 16, seed: int = 0, spread: float = 0.2, weight: float = 2.0
) -> Problem:
    """The mixture with classifier-free guidance towards a quarter of its modes."""
    means = normal(modes, dim, seed=seed)
    uncond = GaussianMixture(means, spread)
    cond = GaussianMixture(means[: max(1, modes // 4)], spread)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return torch.lerp(uncond(x, t), cond(x, t), weight)

    return Problem(name=f"guided({dim}, {weight:g})", dim=dim, velocity=velocity)


@problem
def digits(spread: float = 0.15) -> Problem:
    """scikit-learn's 1797 digits, 8 x 8 pixels scaled to [-1, 1], each blurred into a Gaussian."""
    from sklearn.datasets import load_digits

    means = torch.from_numpy(load_digits().data).double() / 8 - 1
    return Problem(name="digits", dim=64, velocity=GaussianMixture(means, spread))


class GaussianMixture:
    """The velocity of the straight path to equally weighted Gaussians N(mean_k, spread^2), means
    (K, D).

    It is the mean of the modes' velocities, weighted by the probability that x came from each mode.
    """

    def __init__(self, means: Tensor, spread: float):
        self.means, self.spread = means, spread
        self.squares = means.square().sum(-1)

    def weights(self, x: Tensor, t: Tensor | float) -> Tensor:
        """P(mode | x at t), (B, D) -> (B, K)."""
        distance = t * (t / 2 * self.squares - x @ self.means.T)  # |x|^2 is common to all modes
        return (-distance / self._variance(t)).softmax(-1)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        mean = self.weights(x, t) @ self.means
        slope = (t * self.spread**2 - (1 - t)) / self._variance(t)
        return mean + slope * (x - t * mean)

    def _variance(self, t: Tensor | float) -> Tensor | float:
        return (1 - t) ** 2 + t**2 * self.spread**2


def normal(*shape: int, seed: int) -> Tensor:
    """Returns standard normal numbers in float64 that depend on the seed alone."""
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


__getattr__ = old_names(__name__, {"Mixture": "GaussianMixture"})
