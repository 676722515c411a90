"""Pictures from bytes nobody vouches for, prepared as in the paper."""

from __future__ import annotations

import io
import warnings

from PIL import Image, UnidentifiedImageError

from janusflow.limits import hold
from janusflow.pixels import to_rgb

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # none that runs programs


def decode(content: bytes) -> Image.Image:
    """8-bit RGB, upright; of an animation the first picture.

    ValueError if the bytes are no picture of FORMATS, are cut short or beyond `limits`.
    """
    hold("picture_bytes", len(content), f"the picture has {len(content)} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about size: our own limit follows
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            check_size(*image.size)
            image.load()
        return to_rgb(image)
    except UnidentifiedImageError:
        raise ValueError(f"it is no picture of {', '.join(FORMATS)}") from None
    except MemoryError:
        raise
    except Exception as error:  # decoders raise every kind on broken bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"it is not a whole picture ({reason:.160})") from error


def check_size(width: int, height: int) -> None:
    """ValueError for too many pixels, before they are decoded."""
    hold("pixels", width * height, f"it has {width} x {height} pixels")


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
