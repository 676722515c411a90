"""What the page does with a model, a piece at a time, so that a visitor may leave in between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import samplers
from janusflow.demo.requests import MAX_TOKENS, Wish, text
from janusflow.pipelines.conversation import Stop
from samplers.core import times

LOOKS = 8  # previews of a picture on its way, at most


@dataclass(frozen=True)
class Look:
    """A picture on its way: what the model expects at time t, after so many calls."""

    image: Image.Image
    t: float
    calls: int


@torch.no_grad()
def paint(pipe, wish: Wish) -> Iterator[Look | None]:
    """What the model expects along the way, at most LOOKS times, and the picture at t = 1.

    Between them comes None after every step: that is where the work can be stopped. The expected
    picture is x + (1 - t) v with the velocity of the last step.
    """
    field = samplers.count(pipe.field([wish.prompt], wish.guidance))
    noise = pipe.prepare_latents(1, None, None, torch.Generator().manual_seed(wish.seed))
    grid = wish.solver.grid
    place = samplers.GRIDS[grid] if isinstance(grid, str) else grid
    ts = times(place(wish.steps), wish.solver)
    path = samplers.trajectory(field, noise, ts, wish.solver)
    t, x = next(path)
    due = set(np.linspace(1, wish.steps, LOOKS + 1).round().astype(int)[:-1])
    for step, (s, y) in enumerate(path, 1):
        expected = y + (1 - s) / (s - t) * (y - x)
        last = step == wish.steps
        yield _look(pipe, expected, s, field.calls) if step in due and not last else None
        t, x = s, y
    yield _look(pipe, x, t, field.calls)


def _look(pipe, latents: Tensor, t: Tensor, calls: int) -> Look:
    return Look(pipe.decode(latents.float())[0], float(t), calls)


def apart(a: Image.Image, b: Image.Image) -> float:
    """Mean absolute difference of two pictures, in grey levels of 255."""
    return float(np.abs(np.asarray(a, float) - np.asarray(b, float)).mean())


def answer(pipe, image: Image.Image, question: str) -> Iterator[str]:
    """The answer so far, longer each time; leaving early stops the model."""
    stop, said = Stop(), ""
    try:
        pieces = pipe.chat(
            text(question, "question"),
            [image],
            stream=True,
            max_new_tokens=MAX_TOKENS,
            stopping_criteria=[stop],
        )
        for piece in pieces:
            said += piece
            yield said.strip()
    finally:
        stop.left.set()
