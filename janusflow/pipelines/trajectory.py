"""The images that the model expects during sampling, as a strip or an animated GIF."""

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from janusflow.pipelines.outputs import png
from janusflow.utils.images import grid
from samplers.core import Velocity
from samplers.fields import is_flow_map


@dataclass(frozen=True)
class Trajectory:
    """`frames[i]` are the images, one per prompt, that the model expects at `times[i]`; the last
    are the result.

    The expected image at t is x + (1 - t) v, where v is the velocity of the step that ends at t. A
    flow map's is its jump to 1 from where that step starts.
    """

    frames: list[list[Image.Image]]
    times: list[float]
    captions: list[str]

    def strip(self, gap: int = 4) -> Image.Image:
        """Returns one row of frames per prompt, from noise on the left to data on the right."""
        rows = list(zip(*self.frames, strict=True))
        return grid([image for row in rows for image in row], gap, columns=len(self.frames))

    def save(self, path: str | Path, milliseconds: int = 120) -> Path:
        """Saves a .gif that holds the last frame for a second, or the strip in another format."""
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


def expected(field: Velocity, t: Tensor, x: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """Returns the data that a step from x at t to y at s leads to, x + (1 - t) v with its velocity.

    The mean velocity of a flow map holds between t and s only, so it is evaluated again, to 1.
    """
    if is_flow_map(field) and s < 1:
        return field.jump(x, t, torch.ones_like(s))
    return y + (1 - s) / (s - t) * (y - x)


def chosen(steps: int, frames: int) -> list[int]:
    """Returns at most so many step numbers, evenly spread, including the last."""
    places = torch.linspace(0, steps - 1, min(frames, steps)).round().int().tolist()
    return list(dict.fromkeys(places))
