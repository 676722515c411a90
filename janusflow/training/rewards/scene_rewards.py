"""Rewards of scenes by the exact scorer, the second reader, and the autoencoder's upper bound."""

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
    """1 if the image shows exactly what was requested, else 0."""
    return torch.tensor([float(one.strict) for one in graded.scores])


@reward(batched=True)
def lenient(graded: Graded) -> Tensor:
    """1 if the image shows at least what was requested, as in GenEval, else 0."""
    return torch.tensor([float(one.lenient) for one in graded.scores])


@reward(batched=True)
def parts(graded: Graded) -> Tensor:
    """The fraction of the request that the image shows, in [0, 1].

    0.8 times the matched objects divided by the larger of the numbers requested and found, plus 0.2
    for the relation or, without one, for a completely correct image.
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
    """1 if the second reader, independent of the scorer, finds what the prompt says, else 0."""
    pairs = zip(graded.pixels, graded.requests, strict=True)
    return torch.tensor([float(second_reader.strict(i.astype(float), r.text)) for i, r in pairs])


@reward(batched=True)
def clean(graded: Graded) -> Tensor:
    """How well the objects are drawn, whatever was requested, in [0, 1].

    It is 1 minus the mean fraction of their pixels that no shape explains, relative to the fraction
    at which the scorer gives up; 0 without objects.
    """
    return torch.tensor([_cleanness(one) for one in graded.scores])


@reward(batched=True)
def quality(graded: Graded) -> Tensor:
    """1 - |image - ceiling| / |background - ceiling|, root mean squares, at least 0, whatever was
    requested.

    The ceiling is a rendering of the scene as it was read from the image, encoded and decoded if an
    autoencoder is available. The result is 0 if an object cannot be named, or if there is none.
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
    """Returns the objects that were read, or none if one of them has no name."""
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
