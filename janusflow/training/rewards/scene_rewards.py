"""Rewards of the small world by its exact scorer and its second reader."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from janusflow.models import latents
from janusflow.scenes import second_reader
from janusflow.scenes.patches import pixels
from janusflow.scenes.scorer import MISSHAPEN, Score
from janusflow.scenes.shapes import Obj, render_batch
from janusflow.scenes.world import Prompt
from janusflow.training.rewards.reward import Graded, reward


@reward(batched=True)
def strict(graded: Graded) -> Tensor:
    """1 where exactly what was asked for is there, else 0."""
    return torch.tensor([float(one.strict) for one in graded.scores])


@reward(batched=True)
def lenient(graded: Graded) -> Tensor:
    """1 where at least what was asked for is there, as GenEval counts."""
    return torch.tensor([float(one.lenient) for one in graded.scores])


@reward(batched=True)
def parts(graded: Graded) -> Tensor:
    """The share of what was asked for that is there: each object by itself, in [0, 1].

    Matched objects over the larger of those asked for and those found, 0.8 of it, and the relation,
    or where none was asked for the whole being right, 0.2.
    """
    pairs = zip(graded.scores, graded.requests, strict=True)
    return torch.tensor([_share(one, request) for one, request in pairs])


def _share(one: Score, request: Prompt) -> float:
    asked = sum(need.count for need in request.needs)
    right = sum(
        min(need.count, sum(need.matches(obj) for obj in one.found)) for need in request.needs
    )
    whole = one.lenient if request.relation else one.strict
    return 0.8 * right / max(asked, len(one.found)) + 0.2 * whole


@reward(name="second_reader", batched=True)
def by_second_reader(graded: Graded) -> Tensor:
    """1 where the second reader, which shares no code with the scorer, finds what the text says."""
    pairs = zip(graded.pixels, graded.requests, strict=True)
    return torch.tensor([float(second_reader.strict(i.astype(float), r.text)) for i, r in pairs])


@reward(batched=True)
def clean(graded: Graded) -> Tensor:
    """How well drawn the objects are, whatever was asked for: 1 less the mean share of their pixels
    that no shape explains, over the share at which the scorer gives up; 0 where there is nothing.
    """
    return torch.tensor([_cleanness(one) for one in graded.scores])


@reward(batched=True)
def quality(graded: Graded) -> Tensor:
    """How near each image is to the best that the autoencoder makes of what it shows, whatever was
    asked for: 1 - |image - ceiling| / |background - ceiling|, root mean squares, at least 0.

    The ceiling is the drawing of the scene as it is read, through the autoencoder where one came
    with the images; 0 where an object cannot be named, or there is none.
    """
    known = [_drawn(one) for one in graded.scores]
    named = [i for i, objects in enumerate(known) if objects]
    found = torch.zeros(len(known))
    if named:
        side = graded.pixels.shape[1]
        best = _through(graded.vae, pixels(render_batch([known[i] for i in named], side)))
        own, empty = pixels(graded.pixels[named]), pixels(render_batch([[]], side))
        found[named] = (1 - _distance(own, best) / _distance(empty, best)).clamp(min=0)
    return found


def _drawn(one: Score) -> list[Obj]:
    """The objects of a reading, or none where one has no name."""
    if any(obj.shape is None or obj.color is None for obj in one.found):
        return []
    return [Obj(obj.shape, obj.color, obj.x, obj.y, obj.size) for obj in one.found]


@torch.no_grad()
def _through(vae: nn.Module | None, images: Tensor) -> Tensor:
    if vae is None:
        return images
    place = next(vae.parameters(), images).device
    coded = latents.decode(vae, latents.encode(vae, images.to(place)))
    return coded.clamp(-1, 1).float().cpu()


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Root mean square (B,) of the difference of images (B, ...)."""
    return (a - b).square().flatten(1).mean(dim=1).sqrt()


def _cleanness(one: Score) -> float:
    rest = [min(1.0, obj.residual / MISSHAPEN) for obj in one.found]
    return 1 - sum(rest) / len(rest) if rest else 0.0
