"""The easy world of the alignment study: one large object an image, few shapes and colours.

Small enough that a model of two million parameters follows its prompts after minutes on one core.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from janusflow.models import latents
from janusflow.models.autoencoder import PatchAutoencoder
from janusflow.models.janusflow.processing import JanusFlowProcessor
from janusflow.models.janusflow.tokenizer import build_tokenizer
from janusflow.scenes.patches import pixels
from janusflow.scenes.questions import vocabulary
from janusflow.scenes.shapes import SIDE, Obj, render_batch
from janusflow.scenes.world import Need, Prompt, generator

SHAPES = ("circle", "square", "triangle")
COLORS = ("red", "green", "blue", "yellow")
SIZES = range(46, 53)  # pixels of 96
REACH = 4  # pixels by which a centre may lie off the middle, along each axis
KINDS = [(shape, color) for shape in SHAPES for color in COLORS]
CHUNK = 256  # images rendered at once


def request(kind: int) -> Prompt:
    """Returns a request for exactly one object of this shape in this colour."""
    need = Need(*KINDS[kind])
    return Prompt(need.phrase, "colors", (need,))


def other(kind: np.ndarray) -> np.ndarray:
    """Returns for each kind one that differs in shape and in colour."""
    shape, color = kind // len(COLORS), kind % len(COLORS)
    return (shape + 1) % len(SHAPES) * len(COLORS) + (color + 1) % len(COLORS)


def draw(split: str, count: int) -> tuple[np.ndarray, list[tuple[Obj, ...]]]:
    """Returns kinds (count,) and their scenes' objects; scene i depends on (split, i) alone."""
    kinds, scenes = np.empty(count, int), []
    for i in range(count):
        rng = generator("ablate", split, i)
        kinds[i], size = rng.integers(len(KINDS)), int(rng.integers(SIZES.start, SIZES.stop))
        x, y = (SIDE // 2 + int(n) for n in rng.integers(-REACH, REACH + 1, 2))
        scenes.append((Obj(*KINDS[kinds[i]], x, y, size),))
    return kinds, scenes


@dataclass(frozen=True)
class Pool:
    """Scenes with their latents, which are the same in every run."""

    kinds: np.ndarray  # (N,)
    objects: list[tuple[Obj, ...]]
    latents: Tensor  # (N, c, 12, 12)

    def __len__(self) -> int:
        return len(self.kinds)

    def pixels(self) -> Iterator[Tensor]:
        """Yields the images, (<= CHUNK, 3, 96, 96) at a time."""
        yield from rendered(self.objects)


def rendered(scenes: list) -> Iterator[Tensor]:
    for start in range(0, len(scenes), CHUNK):
        yield pixels(render_batch(scenes[start : start + CHUNK]))


def pool(split: str, count: int, autoencoder: PatchAutoencoder) -> Pool:
    kinds, scenes = draw(split, count)
    with torch.no_grad():
        parts = [latents.encode(autoencoder, p) for p in rendered(scenes)]
    return Pool(kinds, scenes, torch.cat(parts))


def autoencoder(channels: int, count: int = 512) -> PatchAutoencoder:
    """Returns an autoencoder of the principal components of training scenes' patches."""
    made = PatchAutoencoder(channels)
    made.fit(torch.cat(list(rendered(draw("train", count)[1]))))
    return made.requires_grad_(False)


def prompts(folder: Path) -> tuple[dict[str, Tensor], int]:
    """Returns ids and mask of every kind's prompt (12, L), and the size of the vocabulary."""
    build_tokenizer(folder, [*vocabulary(), "User", "Assistant"], system_prompt="")
    processor = JanusFlowProcessor.from_pretrained(folder)
    batch = processor.prompt([request(kind).text for kind in range(len(KINDS))])
    ids = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return ids, len(processor.tokenizer)
