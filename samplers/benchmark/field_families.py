"""Families of hard fields, drawn from a seed, on which default solvers are judged.

A family is a function of a random source; the same seed gives the same field. All but
`tanh_networks` are exact velocities of the straight path for some data distribution, with or
without guidance.
"""

import math
from collections.abc import Callable
from functools import cache
from random import Random

import torch
from torch import Tensor

from samplers.benchmark.problems import GaussianMixture, Problem, gaussian, guided, mixture, normal
from samplers.benchmark.problems import digits as blurred_digits
from samplers.core import Velocity
from samplers.guidance import autoguidance, guide
from samplers.guidance import cfg_zero_star as zero_star
from samplers.guidance import guidance_interval as within

Family = Callable[[Random], Problem]
FAMILIES: dict[str, Family] = {}


def family(make: Family) -> Family:
    """A decorator that registers a family under its function's name."""
    FAMILIES[make.__name__] = make
    return make


class Scaled:
    """The velocity towards Gaussians with a standard deviation per mode and axis; means and
    deviations (K, D).

    `axes`, (D, D) orthogonal, rotates the axes; all modes have equal weight.
    """

    def __init__(self, means: Tensor, deviations: Tensor, axes: Tensor | None = None):
        self.means, self.variances, self.axes = means, deviations.expand_as(means) ** 2, axes

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        x = x if self.axes is None else x @ self.axes
        off = x[:, None] - t * self.means
        variance = (1 - t) ** 2 + t**2 * self.variances
        logs = -(off.square() / variance + variance.log()).sum(-1) / 2
        modes = self.means + (t * self.variances - (1 - t)) / variance * off
        v = (logs.softmax(1)[..., None] * modes).sum(1)
        return v if self.axes is None else v @ self.axes.T


def seeded(rng: Random) -> int:
    return rng.randrange(2**31)


def uniformly(rng: Random, low: float, high: float) -> float:
    """Returns a number between low and high whose logarithm is uniform."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def made(velocity: Velocity, dim: int, name: str) -> Problem:
    return Problem(name=name, dim=dim, velocity=velocity)


@family
def curves(rng: Random) -> Problem:
    """Two moons or a ring in the plane, as a kernel density over 100 to 400 points."""
    count, spread = rng.randint(100, 400), uniformly(rng, 0.03, 0.15)
    angle = math.pi * torch.linspace(0, 2, count, dtype=torch.float64)
    points = torch.stack([angle.cos(), angle.sin()], 1)
    if moons := rng.random() < 0.5:
        lower = torch.arange(count) % 2 == 1
        points[:, 1] = points[:, 1].abs() - 0.25
        points = torch.where(lower[:, None], torch.tensor([1.0, 0.0]) - points, points)
        points = points - torch.tensor([0.5, 0.0])
    points = points * rng.uniform(0.7, 1.8) + 0.02 * normal(count, 2, seed=seeded(rng))
    return made(GaussianMixture(points, spread), 2, f"{'moons' if moons else 'ring'}({spread:.2g})")


@family
def anisotropic(rng: Random) -> Problem:
    """Modes, narrow along some axes and wide along others, with deviations from .02 to 1.5."""
    dim, modes = rng.choice([4, 8, 12]), rng.choice([3, 6, 12])
    deviations = torch.tensor(
        [[uniformly(rng, 0.02, 1.5) for _ in range(dim)] for _ in range(modes)]
    ).double()
    means = rng.uniform(0.5, 1.5) * normal(modes, dim, seed=seeded(rng))
    axes = torch.linalg.qr(normal(dim, dim, seed=seeded(rng)))[0]
    return made(Scaled(means, deviations, axes), dim, f"anisotropic({dim}, {modes})")


@family
def guided_mixtures(rng: Random) -> Problem:
    """Guidance of weight 1.5 to 7 towards a quarter of the modes."""
    dim, modes = rng.choice([4, 16, 32]), rng.choice([8, 16, 32])
    weight, spread = rng.uniform(1.5, 7), uniformly(rng, 0.1, 0.3)
    means = normal(modes, dim, seed=seeded(rng))
    pair = GaussianMixture(means[: modes // 4], spread), GaussianMixture(means, spread)
    return made(guide(pair, weight), dim, f"guided({dim}, {weight:.1f})")


class TanhNetwork:
    """v = A tanh(B x + a t + b) - c x with random weights: smooth, without a data distribution."""

    def __init__(self, dim: int, width: int, gain: float, pull: float, seed: int):
        self.inward = gain * normal(dim + 2, width, seed=seed) / dim**0.5
        self.inward[dim:] *= dim**0.5
        self.outward = normal(width, dim, seed=seed + 1) * (2 / width) ** 0.5
        self.pull = pull

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        time = torch.stack([t, torch.ones_like(t)]).to(x.dtype)
        hidden = torch.tanh(x @ self.inward[:-2] + time @ self.inward[-2:])
        return hidden @ self.outward - self.pull * x


@family
def tanh_networks(rng: Random) -> Problem:
    """Random networks with one hidden layer of 64 to 256 units and gain 0.7 to 2.5."""
    dim, width, gain = rng.choice([16, 32, 48]), rng.choice([64, 128, 256]), rng.uniform(0.7, 2.5)
    network = TanhNetwork(dim, width, gain, rng.choice([0.0, 1.0]), seeded(rng))
    return made(network, dim, f"tanh({dim}, {gain:.1f})")


@family
def stiff_ends(rng: Random) -> Problem:
    """Narrow modes with deviation .005 to .03, where the last tenth of the path is decisive."""
    dim, modes, spread = (
        rng.choice([8, 16, 32]),
        rng.choice([4, 8, 16]),
        uniformly(rng, 0.005, 0.03),
    )
    return made(
        GaussianMixture(normal(modes, dim, seed=seeded(rng)), spread), dim, f"stiff({spread:.2g})"
    )


@family
def low_rank(rng: Random) -> Problem:
    """Modes within a subspace of 4 to 16 of 256 dimensions, with deviation .01 to .05 across it."""
    dim, rank, modes = 256, rng.choice([4, 8, 16]), rng.choice([8, 16])
    across, along = uniformly(rng, 0.01, 0.05), uniformly(rng, 0.1, 0.5)
    axes = torch.linalg.qr(normal(dim, dim, seed=seeded(rng)))[0]
    deviations = torch.full((dim,), across, dtype=torch.float64)
    deviations[:rank] = along
    means = torch.zeros(modes, dim, dtype=torch.float64)
    means[:, :rank] = rng.uniform(1, 2) * normal(modes, rank, seed=seeded(rng))
    return made(Scaled(means, deviations, axes), dim, f"low rank({rank}, {across:.2g})")


@cache
def digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's digits: pixels in [-1, 1], (1797, 64), and labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return torch.from_numpy(data.data).double() / 8 - 1, torch.from_numpy(data.target)


@family
def point_clouds(rng: Random) -> Problem:
    """All images of one digit, each a Gaussian of deviation .02 to .1, like a conditional model."""
    points, labels = digits()
    label, spread = rng.randrange(10), uniformly(rng, 0.02, 0.1)
    return made(
        GaussianMixture(points[labels == label], spread), 64, f"cloud of {label}({spread:.2g})"
    )


@family
def guided_digits(rng: Random) -> Problem:
    """Guidance of 1.5 to 6 towards one digit; images are Gaussians of deviation .08 to .2."""
    points, labels = digits()
    label, spread, weight = rng.randrange(10), uniformly(rng, 0.08, 0.2), rng.uniform(1.5, 6)
    pair = GaussianMixture(points[labels == label], spread), GaussianMixture(points[::4], spread)
    return made(guide(pair, weight), 64, f"guided to {label}({weight:.1f})")


@family
def heavy_tails(rng: Random) -> Problem:
    """Nested Gaussians that approximate Student's t with 2 to 4 degrees of freedom."""
    dim, modes, degrees = rng.choice([2, 8, 16]), rng.choice([2, 4]), rng.uniform(2, 4)
    gamma = torch.distributions.Chi2(degrees)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeded(rng))
        scales = (
            (degrees / gamma.sample((4096,)).double())
            .sqrt()
            .quantile(torch.linspace(0.02, 0.98, 12).double())
        )
    scales = uniformly(rng, 0.1, 0.5) * scales
    means = normal(modes, dim, seed=seeded(rng)).repeat_interleave(12, 0)
    return made(Scaled(means, scales.repeat(modes)[:, None]), dim, f"tails({dim}, {degrees:.1f})")


@family
def switched(rng: Random) -> Problem:
    """Guidance with jumps: in an interval, after rest (CFG-Zero*), or by a weaker model."""
    dim, spread, weight = rng.choice([8, 16, 32]), uniformly(rng, 0.1, 0.3), rng.uniform(2, 6)
    means = normal(16, dim, seed=seeded(rng))
    strong, weak = GaussianMixture(means[:4], spread), GaussianMixture(means, spread)
    blurred = GaussianMixture(means[:4], 1.5 * spread)
    start, stop = rng.uniform(0.05, 0.3), rng.uniform(0.6, 0.95)
    kind = rng.choice(["within", "zero_star", "autoguidance"])
    velocity = {
        "within": lambda: guide((strong, weak), within(weight, start, stop)),
        "zero_star": lambda: guide((strong, weak), zero_star(weight, rng.uniform(0.03, 0.08))),
        "autoguidance": lambda: guide((strong, blurred), within(autoguidance(2), start, stop)),
    }[kind]()
    return made(velocity, dim, f"{kind}({dim}, {weight:.1f})")


@family
def mild(rng: Random) -> Problem:
    """Easy fields: Gaussians, mixtures, weak guidance, blurred digits by .15 to .25."""
    kind = rng.choice(["gaussian", "mixture", "guided", "digits"])
    dim = rng.choice([2, 3, 10, 32, 64])
    options = {"dim": dim, "seed": seeded(rng)}
    if kind == "gaussian":
        return gaussian(**options, low=uniformly(rng, 0.05, 0.2), high=rng.uniform(1, 2))
    if kind == "mixture":
        return mixture(**options, modes=rng.choice([6, 12, 40]), spread=rng.uniform(0.15, 0.35))
    if kind == "guided":
        return guided(**options, modes=rng.choice([12, 24]), weight=rng.uniform(1.5, 2.5))
    return blurred_digits(spread=rng.uniform(0.15, 0.25))
