"""The cut of a picture that is to be made."""

from __future__ import annotations

from PIL import Image


def square_crop(image: Image.Image, size: int, share: float = 0.5) -> Image.Image:
    """The short side becomes `size`, of the long side a window is cut: `share` 0 is its left or
    upper end, 1 the other, 0.5 the middle.

    Cut and resized at once, so that a picture of 1 x 1,000,000 costs no more than any other.
    """
    width, height = image.size
    side = min(width, height)
    left, top = share * (width - side), share * (height - side)
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)
