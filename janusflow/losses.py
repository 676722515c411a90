"""What training minimises: pure functions, one value a sample, and the densities of time."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Density = Callable[..., Tensor]
DENSITIES: dict[str, Density] = {}


def density(draw: Density) -> Density:
    """Registers a rule that turns uniform numbers u (B,) in (0, 1) into times (B,) in (0, 1)."""
    DENSITIES[draw.__name__] = draw
    return draw


@density
def uniform(u: Tensor) -> Tensor:
    return u


@density
def logit_normal(u: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """t = sigmoid(mean + std z), z normal. Esser et al. 2024 (SD3), eq. 19."""
    return torch.special.ndtri(u).mul(std).add(mean).sigmoid()


@density
def cosmap(u: Tensor) -> Tensor:
    """p(t) = 2 / (pi (1 - 2 t + 2 t^2)), by its inverse. Esser et al. 2024, eq. 21."""
    return 1 - 1 / (torch.tan(torch.pi / 2 * u) + 1)


@density
def mode(u: Tensor, scale: float = 1.29) -> Tensor:
    """t = 1 - u - s (cos^2(pi u / 2) - 1 + u). Esser et al. 2024, eq. 20."""
    return 1 - u - scale * (torch.cos(torch.pi / 2 * u) ** 2 - 1 + u)


def shifted(t: Tensor, shift: float) -> Tensor:
    """Moves times towards the noise for shift > 1: with s = 1 - t, s -> a s / (1 + (a - 1) s)."""
    s = 1 - t
    return 1 - shift * s / (1 + (shift - 1) * s)


def sample_times(
    count: int,
    name: str = "logit_normal",
    generator: torch.Generator | None = None,
    shift: float = 1.0,
    **options: float,
) -> Tensor:
    """Times (count,) in [0, 1], 0 noise, stratified: one from each of `count` equal shares.

    Raises ValueError for an unknown density.
    """
    if name not in DENSITIES:
        raise ValueError(f"no density named {name!r}; choose one of {', '.join(DENSITIES)}")
    strata = torch.randperm(count, generator=generator)
    u = (strata + torch.rand(count, generator=generator)) / count
    return shifted(DENSITIES[name](u.clamp(1e-6, 1 - 1e-6), **options), shift)


def interpolate(noise: Tensor, data: Tensor, t: Tensor) -> Tensor:
    """(1 - t) noise + t data, with t (B,) for states (B, ...)."""
    return torch.lerp(noise, data, t.view(-1, *[1] * (data.ndim - 1)))


def flow(velocity: Tensor, noise: Tensor, data: Tensor) -> Tensor:
    """Mean squared error to data - noise: (B, ...) three times -> (B,). Liu et al. 2022, eq. 1."""
    return (velocity - (data - noise)).square().flatten(1).mean(dim=1)


def alignment(hidden: Tensor, teacher: Tensor) -> Tensor:
    """1 - mean cosine similarity of tokens, (B, L, D) twice -> (B,) in [0, 2].

    The teacher gets no gradient. Yu et al. 2024 (REPA), eq. 8, shifted by one so that perfect
    alignment costs nothing.
    """
    return 1 - nn.functional.cosine_similarity(hidden, teacher.detach(), dim=-1).mean(dim=1)


def next_token(logits: Tensor, labels: Tensor, ignore: int = -100) -> Tensor:
    """Mean cross-entropy of the labelled tokens, logits (B, L, V), labels (B, L) -> (B,).

    `labels[:, i]` is the token at place i; the logits before it are held to it.
    """
    logits, labels = logits[:, :-1].transpose(1, 2), labels[:, 1:]
    losses = nn.functional.cross_entropy(logits, labels, ignore_index=ignore, reduction="none")
    return losses.sum(dim=1) / (labels != ignore).sum(dim=1).clamp(min=1)
