"""What the model expects on its way from noise to an image, as a strip or a moving image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from janusflow.pipelines.outputs import png
from janusflow.utils.images import grid


@dataclass(frozen=True)
class Trajectory:
    """`frames[i]` are the images (one a prompt) that are expected at `times[i]`, the last the
    result.

    The expected image at t is x + (1 - t) v with the velocity v of the step that ends there.
    """

    frames: list[list[Image.Image]]
    times: list[float]
    captions: list[str]

    def strip(self, gap: int = 4) -> Image.Image:
        """A row of frames for each prompt, from noise on the left to data on the right."""
        rows = list(zip(*self.frames, strict=True))
        return grid([image for row in rows for image in row], gap, columns=len(self.frames))

    def save(self, path: str | Path, milliseconds: int = 120) -> Path:
        """A .gif that shows the frames one after the other and the last for a second, or the strip
        in any other format of PIL.
        """
        path = Path(path)
        if path.suffix.lower() != ".gif":
            self.strip().save(path)
            return path
        frames = [grid(images) for images in self.frames]
        pauses = [milliseconds] * (len(frames) - 1) + [1000]
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=pauses, loop=0)
        return path

    def _repr_png_(self) -> bytes:
        return png(self.strip())


def expected(states: Sequence[Tensor], ts: Tensor) -> list[Tensor]:
    """x + (1 - t) v at ts[1:], of the states at `ts`."""
    steps = zip(states[:-1], states[1:], ts[:-1].tolist(), ts[1:].tolist(), strict=True)
    return [y + (1 - s) / (s - t) * (y - x) for x, y, t, s in steps]


def chosen(steps: int, frames: int) -> list[int]:
    """At most so many of the steps, evenly spread, the last among them."""
    places = torch.linspace(0, steps - 1, min(frames, steps)).round().int().tolist()
    return list(dict.fromkeys(places))
