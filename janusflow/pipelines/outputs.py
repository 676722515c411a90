"""What generating gives back: images that show themselves, with what they cost."""

from __future__ import annotations

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
    """For an output with `images` and `captions`: how a notebook shows it."""

    def _pil(self) -> list[Image.Image]:
        """The images as PIL's, or none where they are latents."""
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
    """The bytes of a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@dataclass
class JanusFlowOutput(Shown, BaseOutput):
    """`images`: PIL images, or an array or tensor; `calls`: network evaluations (NFE) per image.

    `skipped`: with the first-block cache, how many of each image's evaluations took over what the
    later blocks had added. `captions`: one text an image, for notebooks. `scores`: with `best_of`,
    what the verifier gave to each image that was kept. `generated_by`: the few-step model whose
    weights generated them, None for the pipeline's own.
    """

    images: list[Image.Image]
    calls: int
    skipped: list[int] | None = None
    captions: list[str] | None = None
    scores: list[float] | None = None
    generated_by: str | None = None
