"""Thirty-odd stamps of fruit: fetched, and recognised in what a model generates of their captions.

The stamps are Debian's (GPL-2), so they are fetched by whoever runs this and never stored here.
Notebook 6 teaches them to `janusflow/emoji`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from janusflow import JanusFlowPipeline
from janusflow.data.collections import folder
from janusflow.data.collections.batches import ImageEntry, read_items, read_pixels

KEPT = Path("~/.cache/janusflow/stamps-fruit").expanduser()
SIDE = 8  # pixels that images are compared at: the form and the colours, no detail
STEPS = 20
SHOWN, HELD_OUT = 37, 7  # stamps in training and not


def fetch(out: Path = KEPT) -> Path | None:
    """Returns the folder of fruit stamps, downloaded once; None where they cannot be had."""
    try:
        folder.build("stamps", out, size=64, only="food/fruit")
    except (OSError, ValueError):
        return None
    return out


def generated(model: str, adapter: Path | None, captions: Sequence[str]) -> list[Image.Image]:
    """Returns an image of each caption, all from the same seed."""
    pipe = JanusFlowPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    if adapter:
        pipe.load_lora_weights(adapter)
    how = dict(num_inference_steps=STEPS, guidance_scale=2.0, seed=0)
    return pipe(list(captions), **how).images


def small(pixels: Tensor) -> Tensor:
    """Images (B, 3, H, W) of bytes -> (B, 3 SIDE^2) in [0, 1], averaged to SIDE x SIDE."""
    return torch.nn.functional.interpolate(pixels / 255.0, (SIDE, SIDE), mode="area").flatten(1)


def recognised(images: Sequence[Image.Image], asked: Sequence[str], data: Path) -> float:
    """Returns the share of images whose nearest stamp has the caption that was asked for.

    Distances are Euclidean between images averaged to 8 x 8 pixels. All stamps of `data` are
    candidates, training and held-out ones.
    """
    items = every(data)
    known = small(read_pixels(data, items))
    shown = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    nearest = torch.cdist(small(shown.permute(0, 3, 1, 2)), known).argmin(1)
    found = [items[i].name for i in nearest.tolist()]
    return sum(a == b for a, b in zip(found, asked, strict=True)) / len(found)


def every(data: Path) -> list[ImageEntry]:
    return [item for split in ("train", "test") for item in read_items(data, split)]
