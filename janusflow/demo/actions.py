"""The model's work for the page, in small steps so that a visitor may stop it in between."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import samplers
from janusflow.demo.requests import (
    MAX_STRENGTH,
    MAX_TOKENS,
    GenerationRequest,
    number,
    refusals,
    text,
)
from janusflow.pipelines.trajectory import expected

LOOKS = 8  # previews of an image on its way, at most


@dataclass(frozen=True)
class Look:
    """An image during sampling: what the model expects at t, after `nfe` network evaluations.

    `by` is the few-step model that generates it, or None for the model itself.
    """

    image: Image.Image
    t: float
    nfe: int
    by: str | None = None


@torch.no_grad()
def generate(pipe, request: GenerationRequest, seed: int | None = None) -> Iterator[Look | None]:
    """Yields the image that the model expects, at most LOOKS times, and the final image.

    After every step in between it yields None, where the work can be stopped. `seed` replaces the
    request's.
    """
    steps, walk, by = _walk(pipe, request, request.seed if seed is None else seed)
    due = set(np.linspace(1, steps, LOOKS + 1).round().astype(int)[:-1])
    for step, (begin, (s, y), nfe, field) in enumerate(walk, 1):
        look = step in due and step < steps
        yield _look(pipe, expected(field, *begin, s, y), s, nfe, by) if look else None
    yield _look(pipe, y, s, nfe, by)


def _walk(pipe, request: GenerationRequest, seed: int):
    """Returns the number of steps, then (t, x), (s, y), the NFE so far and the field of each, from
    x to y, and the name of the few-step model that generates, if one does.

    Raises `InvalidRequest` for a request that the model refuses.
    """
    with refusals("prompt"):
        call, field = pipe.prepare(request.prompt, **request.options)
    counted = samplers.count(field)
    noise = pipe.prepare_latents(1, None, None, torch.Generator().manual_seed(seed))
    path = samplers.trajectory(counted, noise, call.ts, call.solver)
    walk = ((*ends, counted.calls, field) for ends in pairwise(path))
    return len(call.ts) - 1, walk, call.few and call.few.model


@dataclass(frozen=True)
class Frame:
    """A point of a trajectory: the decoded state at t, and the image expected there."""

    state: Image.Image
    expected: Image.Image
    t: float
    nfe: int


@torch.no_grad()
def trajectory(pipe, request: GenerationRequest, frames: int) -> Iterator[Frame | None]:
    """Yields at most so many frames, evenly spaced from t = 0 to t = 1, and None between them.

    The expected image is that of the step which starts at t.
    """
    steps, walk, _ = _walk(pipe, request, request.seed)
    due = set(np.linspace(0, steps, frames).round().astype(int)[:-1])
    for step, ((t, x), (s, y), nfe, field) in enumerate(walk):
        yield _frame(pipe, x, expected(field, t, x, s, y), t, nfe) if step in due else None
    yield _frame(pipe, y, y, s, nfe)


def _frame(pipe, x: Tensor, end: Tensor, t: float, nfe: int) -> Frame:
    state, image = (pipe.decode(latents.float())[0] for latents in (x, end))
    return Frame(state, image, float(t), nfe)


def edit(pipe, image: Image.Image, request: GenerationRequest, strength: float) -> Image.Image:
    """Returns the image changed towards the prompt, more with a larger strength in (0, 1]."""
    number(strength, "strength", 0.05, MAX_STRENGTH)
    with refusals("prompt"):
        pipe.processor.prompt(request.prompt)
    made = pipe.edit(
        image,
        request.prompt,
        strength=float(strength),
        negative_prompt=request.negative_prompt or None,
        guidance_scale=request.guidance,
        generator=torch.Generator().manual_seed(request.seed),
    )
    return made.images[0]


def _look(pipe, latents: Tensor, t: Tensor, nfe: int, by: str | None) -> Look:
    return Look(pipe.decode(latents.float())[0], float(t), nfe, by)


def apart(a: Image.Image, b: Image.Image) -> float:
    """Returns the mean absolute difference of two images, in grey levels from 0 to 255."""
    return float(np.abs(np.asarray(a, float) - np.asarray(b, float)).mean())


def answer(pipe, image: Image.Image, question: str, turns: Sequence[dict] = ()) -> Iterator[str]:
    """Yields the growing answer after the earlier `turns`; closing the iterator stops it."""
    told = [*turns, {"role": "user", "content": text(question, "question")}]
    first = {"type": "image", "image": image}
    told[0] = {"role": "user", "content": [first, {"type": "text", "text": told[0]["content"]}]}
    said = ""
    with refusals("conversation"):
        pieces = pipe.chat(told, stream=True, max_new_tokens=MAX_TOKENS)
    try:
        for piece in pieces:
            said += piece
            yield said.strip()
    finally:
        pieces.close()
