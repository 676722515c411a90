"""Images: read from files, brought to 8-bit RGB, cut, and laid side by side."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from janusflow.utils import limits
from janusflow.utils.safe_io import read_bytes

# What PIL may open; others run programs (EPS calls Ghostscript) or hold pictures in pictures.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


def read(path: Path) -> Image.Image:
    """A picture, upright and in RGB; of an animation the first.

    ValueError if the file is no picture of `FORMATS`, is cut short or is huge.
    """
    return decode(read_bytes(path, "picture_bytes", "picture"), str(path))


def decode(content: bytes, name: str) -> Image.Image:
    """A picture from the bytes of its file; see `read`."""
    if Image.MAX_IMAGE_PIXELS and limits.most("pixels") > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limits.most("pixels")  # PIL's own limit would come first
    try:
        image = _open(content)
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{name} has more pixels than expected ({error}); at most {limits.most('pixels')} are "
            "taken, or set JANUSFLOW_MAX_PIXELS"
        ) from error
    except Exception as error:
        raise _broken(name, error) from error
    width, height = image.size
    limits.hold("pixels", width * height, f"{name} has {width} x {height} pixels")
    try:
        image.load()
        return to_rgb(image)
    except Exception as error:
        raise _broken(name, error) from error


def _open(content: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of size: the limit is ours
        return Image.open(io.BytesIO(content), formats=FORMATS)


def _broken(name: str, error: Exception) -> ValueError:
    """What to say of any exception of PIL's decoders, which raise every kind on broken bytes."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        reason = f"none of {', '.join(FORMATS)}"
    return ValueError(f"{name!r} is not a whole picture ({reason})")


def to_rgb(image) -> Image.Image:
    """Any picture as 8-bit RGB, turned upright by its EXIF orientation; the input is untouched.

    Takes PIL pictures of every mode, arrays and tensors (H, W), (H, W, C) or (C, H, W) with 1, 3
    or 4 channels: uint8, uint16, bool, or floats in [0, 1]. Transparency is dropped, as published.
    """
    if isinstance(image, Tensor):
        image = image.detach().cpu().float().numpy() if image.is_floating_point() else image.cpu()
        image = np.asarray(image)
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    if not isinstance(image, Image.Image):
        raise TypeError(
            f"a picture is a PIL image, an array or a tensor, not {type(image).__name__}; "
            "open files with PIL.Image.open"
        )
    _check_size(*image.size)
    try:
        return _from_pil(ImageOps.exif_transpose(image))
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ValueError(f"the picture cannot be read: {error}") from error


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ValueError(f"the picture has {width} x {height} pixels; expected at least one")
    limits.hold("pixels", width * height, f"the picture has {width} x {height} pixels")


def _from_pil(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":  # PIL would clip these at 255
        return _from_array(np.asarray(image)).convert("RGB")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return image.convert("RGB")


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[-1] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    elif array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[1] == array.shape[2]:
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))):
        raise ValueError(
            f"an array of shape {array.shape} is no picture; expected (H, W), (H, W, C) or "
            "(C, H, W) with 1, 3 or 4 channels"
        )
    _check_size(array.shape[1], array.shape[0])
    return Image.fromarray(np.ascontiguousarray(_to_bytes(array)))


def _to_bytes(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    low, high = array.min(), array.max()
    if np.issubdtype(array.dtype, np.floating) and low >= 0 and high <= 1:
        return np.round(array * 255).astype(np.uint8)
    if array.dtype == np.uint16 or (high > 255 and low >= 0 and high <= 65535):
        return np.round(array / 257).astype(np.uint8)
    if low >= 0 and high <= 255:
        return np.round(array).astype(np.uint8)
    raise ValueError(
        f"the picture's values run from {low} to {high}; expected 0 to 1, 0 to 255 or 0 to 65535"
    )


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


def grid(images: list[Image.Image], gap: int = 4) -> Image.Image:
    """Pictures of one size side by side on white, nearly square."""
    columns = int(np.ceil(np.sqrt(len(images))))
    rows = -(-len(images) // columns)
    w, h = images[0].size
    size = (columns * (w + gap) - gap, rows * (h + gap) - gap)
    sheet = Image.new("RGB", size, "white")
    for i, image in enumerate(images):
        sheet.paste(image, (i % columns * (w + gap), i // columns * (h + gap)))
    return sheet
