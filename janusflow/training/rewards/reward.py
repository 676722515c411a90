"""Rewards of images by name: numbers, mostly in [0, 1], of which more is better.

    @reward
    def redness(pixels, prompt):
        return float(pixels[..., 0].mean() / 255)

`pixels` is one image (H, W, 3) uint8; `prompt` is its request, with `prompt.text`. Every command
that takes a reward then knows `redness`, and sums such as "0.8*strict + 0.2*redness". A reward of a
whole batch takes `Graded` and is registered with `@reward(batched=True)`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from janusflow.data.samples import Sample
from janusflow.scenes.scorer import Score, score
from janusflow.training import rollouts
from janusflow.utils.keywords import choice


@dataclass(frozen=True, kw_only=True)
class Graded:
    """Images to score: pixels (B, H, W, 3) uint8 with their requests and their model."""

    pixels: np.ndarray
    requests: Sequence
    latents: Tensor | None = None  # (B, c, h, w)
    vae: nn.Module | None = None  # that decoded them
    model: nn.Module | None = None  # whose understanding may judge
    processor: object | None = None

    @cached_property
    def scores(self) -> list[Score]:
        """The exact scorer's results, computed once for all rewards that use them."""
        return [score(image, one) for image, one in zip(self.pixels, self.requests, strict=True)]


def graded(vae: nn.Module, samples: Sequence[Sample], latents: Tensor, **judge) -> Graded:
    """Decodes samples' latents (B, c, h, w) to images that are ready for rewards.

    `judge` holds model and processor, for rewards by the model itself.
    """
    pixels = rollouts.pixels_of(vae, latents).numpy()
    asked = [s.request for s in samples]
    return Graded(pixels=pixels, requests=asked, latents=latents, vae=vae, **judge)


Reward = Callable[[Graded], Tensor]
REWARDS: dict[str, Reward] = {}
JUDGES: dict[str, Callable[[str], Reward]] = {}


def reward(made: Callable | None = None, *, name: str | None = None, batched: bool = False):
    """A decorator: registers (image, request) -> number, or with `batched` `Graded` -> (B,)."""
    if made is None:
        return lambda made: reward(made, name=name, batched=batched)
    REWARDS[name or made.__name__] = made if batched else _each(made)
    return made


def _each(made: Callable) -> Reward:
    def each(graded: Graded) -> Tensor:
        pairs = zip(graded.pixels, graded.requests, strict=True)
        return torch.tensor([float(made(*pair)) for pair in pairs], dtype=torch.float32)

    return each


def judge(made: Callable[[str], Reward]) -> Callable[[str], Reward]:
    """A decorator: registers a function from weights' path to a reward, written NAME:PATH."""
    JUDGES[made.__name__] = made
    return made


def find(text: str) -> Reward:
    """Returns a reward by name, with its weights (clip:PATH), or a weighted sum such as
    "0.65*strict + 0.35*lenient".

    Raises ValueError for an unknown name or another form.
    """
    import janusflow.training.rewards  # noqa: F401 (whose modules register theirs)

    terms = [_term(part) for part in text.split("+")]
    return lambda graded: sum(weight * one(graded).float() for weight, one in terms)


def _term(text: str) -> tuple[float, Reward]:
    weight, star, name = text.strip().rpartition("*")
    found = _named(name.strip())
    try:
        return (float(weight) if star else 1.0), found
    except ValueError:
        raise ValueError(
            f"reward {text!r:.80} has no number before *; write for example 0.5*{name}"
        ) from None


def _named(name: str) -> Reward:
    kind, colon, path = name.partition(":")
    if colon and kind in JUDGES:
        if not path:
            raise ValueError(f"the reward {kind} needs its weights; write {kind}:PATH")
        return JUDGES[kind](path)
    if name not in REWARDS:
        known = [*sorted(REWARDS), *(f"{kind}:PATH" for kind in sorted(JUDGES))]
        choice("no reward named", name, known)
    return REWARDS[name]
