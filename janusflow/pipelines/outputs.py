"""The results of generation: images with their cost, shown in notebooks."""

import base64
import html
import io
from dataclasses import dataclass

import numpy as np
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from janusflow.pipelines.time_grid import time_grid as time_grid  # its place in release 0.1
from janusflow.utils.images import grid


class Shown:
    """A mixin of outputs with `images` and `captions` that defines how a notebook shows them."""

    def _pil(self) -> list[Image.Image]:
        """Returns the images as PIL images, and none for latents."""
        images = self.images
        if isinstance(images, Tensor):
            images = images.detach().cpu().float().numpy()
            images = images.transpose(0, 2, 3, 1) if images.ndim == 4 else images
        if isinstance(images, np.ndarray):
            if images.ndim != 4 or images.shape[-1] != 3:
                return []
            images = [Image.fromarray((one * 255).round().astype(np.uint8)) for one in images]
        return list(images)

    def _repr_png_(self) -> bytes | None:
        images = self._pil()
        return png(grid(images)) if images else None

    def _repr_html_(self) -> str | None:
        images = self._pil()
        if not images:
            return None
        captions = self.captions or [""] * len(images)
        figures = (
            '<figure style="display:inline-block;margin:4px;max-width:400px">'
            f'<img src="data:image/png;base64,{base64.b64encode(png(image)).decode()}"/>'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
            for image, caption in zip(images, captions, strict=True)
        )
        return f"<div>{''.join(figures)}</div>"


def png(image: Image.Image) -> bytes:
    """Returns an image as the bytes of a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@dataclass
class JanusFlowOutput(Shown, BaseOutput):
    """The images of `pipe(prompt)`, PIL images or an array or tensor, and their cost.

    `calls` is the network evaluations (NFE) per image. `skipped` counts per image the evaluations
    that the first-block cache saved. `captions` is one text per image, for notebooks. `scores` are
    the verifier's scores of the images that `best_of` kept. `generated_by` is the few-step model
    whose weights generated them, None for the pipeline's own.
    """

    images: list[Image.Image]
    calls: int
    skipped: list[int] | None = None
    captions: list[str] | None = None
    scores: list[float] | None = None
    generated_by: str | None = None
