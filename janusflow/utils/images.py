"""Reads images, converts them to 8-bit RGB, crops them and arranges them in grids.

One policy for everything that takes an image (chat, editing, masks, encoding, training,
evaluation):

- PIL images of every mode, and arrays and tensors of shape (H, W), (H, W, C) or (C, H, W) with 1, 3
  or 4 channels.
- Floats range from 0 to 1. Overshoot up to `OVERSHOOT`, which resizing can cause, is clipped at
  both ends; larger values are refused, because their scale is unknown.
- 8-bit integers and PIL's 16-bit images use their whole range. Other integers range from 0 to 255,
  or to 65535 if one of them is larger than 255. Only in masks are integers of at most 1 read as 0
  and 1.
- PIL images are turned upright by their EXIF orientation.
- Transparency is dropped, as the published models do.
"""

import io
import re
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError
from torch import Tensor

from janusflow.utils import limits
from janusflow.utils.safe_io import read_bytes
from janusflow.utils.text import explained, printable

OVERSHOOT = 0.05  # of floats beyond 0 and 1; bicubic resizing overshoots by 0.02 on photographs
ADDRESS = re.compile("(https?|file|data):")  # in place of a path

# What PIL may open; others run programs (EPS calls Ghostscript) or hold images in images.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


def read(path: str | Path) -> Image.Image:
    """Reads an image file, upright and in RGB; of an animation the first frame.

    Raises ValueError for an address, and if the file is not an image of one of `FORMATS`, is
    truncated, or exceeds the limit of pixels.
    """
    return decode(_content(path), repr(str(path)))


def read_mask(path: Path) -> Image.Image:
    """Reads an image file as a mask, by `to_mask`; raises the errors of `read` and of `to_mask`."""
    return decode(_content(path), repr(str(path)), to_mask)


def _content(path: str | Path) -> bytes:
    """Returns a file's bytes. Raises ValueError for an address, of whose slashes Path keeps one."""
    if ADDRESS.match(str(path)):
        address = re.sub("^(https?):/+", r"\1://", str(path))
        raise ValueError(
            f"the image is {address!r:.80}; URLs are not downloaded, so save the image and give "
            "its file"
        )
    return read_bytes(Path(path), "image_bytes", "image")


def decode(content: bytes, name: str, convert: Callable | None = None) -> Image.Image:
    """Decodes an image from the bytes of a file and converts it, by default to RGB; see `read`."""
    if not content:
        raise ValueError(f"{name} is not a complete image (it is empty)")
    if Image.MAX_IMAGE_PIXELS and limits.most("pixels") > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limits.most("pixels")  # PIL's own limit would come first
    try:
        image = _open(content)
    except Image.DecompressionBombError as error:
        size = re.search(r"\d+ pixels", str(error))
        raise ValueError(
            f"{name} has {size[0] if size else 'more pixels'}; at most {limits.most('pixels')} are "
            "taken, or set JANUSFLOW_MAX_PIXELS"
        ) from error
    except Exception as error:
        raise _broken(name, error) from error
    width, height = image.size
    limits.hold("pixels", width * height, f"{name} has {width} x {height} pixels")
    try:
        image.load()
    except Exception as error:
        raise _broken(name, error) from error
    try:
        return (convert or to_rgb)(image)
    except Exception as error:
        raise ValueError(f"{name} cannot be used: {printable(error, 200)}") from error


def _open(content: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of size: the limit is ours
        return Image.open(io.BytesIO(content), formats=FORMATS)


def _broken(name: str, error: Exception) -> ValueError:
    """Returns the ValueError for a PIL decoder's exception, which may be of any kind."""
    reason = printable(error, 200) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        reason = f"none of {', '.join(FORMATS)}"
    return ValueError(f"{name} is not a complete image ({reason})")


def to_rgb(image, what: str = "image") -> Image.Image:
    """Converts any image to 8-bit RGB by the policy of this module; the input is unchanged.

    `what` names the image in errors. Raises TypeError for an object that is not an image, and
    ValueError for one that is out of range or damaged.
    """
    image = _array(image)
    if isinstance(image, np.ndarray):
        image = _from_array(image, what)
    if not isinstance(image, Image.Image):
        raise TypeError(
            f"the {what} is of type {type(image).__name__}; expected a PIL image, an array or a "
            "tensor, open files with PIL.Image.open"
        )
    _check_size(*image.size, what)
    with explained(f"the {what} cannot be read", "check its file"):
        upright = ImageOps.exif_transpose(image)
    return _from_pil(upright, what)


def to_mask(image) -> Image.Image:
    """Converts any mask to 8-bit grey, white where it is set.

    Integers of at most 1 are read as 0 and 1.

    Raises the errors of `to_rgb`, and ValueError for a mask with transparent parts, because
    transparency is dropped.
    """
    values = _mask_values(_array(image))
    if isinstance(values, np.ndarray) and np.issubdtype(values.dtype, np.integer):
        if values.size and 0 <= values.min() and values.max() <= 1:
            values = values.astype(bool)
    return to_rgb(values, "mask").convert("L")


def _mask_values(image):
    """Returns a mask's numbers without transparency; for a palette image its colours."""
    if not isinstance(image, Image.Image):
        values = _channels_last(image, "mask") if isinstance(image, np.ndarray) else image
    else:
        if image.mode in ("P", "PA"):
            image = image.convert("RGBA")
        grey = image.mode in ("L", "LA", "RGB", "RGBA", "I", "I;16")
        values = np.asarray(ImageOps.exif_transpose(image)) if grey else image
    if not isinstance(values, np.ndarray) or values.ndim == 2 or values.shape[2] == 3:
        return values
    shown, alpha = values[..., :-1], values[..., -1]
    if alpha.size and alpha.min() != alpha.max() and (shown != alpha[..., None]).any():
        raise ValueError(
            "the mask is transparent in places, and transparency is dropped; give its alpha "
            "channel as the mask, mask.getchannel('A'), or its colours, mask.convert('RGB')"
        )
    return shown[..., 0] if shown.shape[2] == 1 else shown


def to_tensor(images) -> Tensor:
    """Converts images of one size to (B, 3, H, W) float32 in [0, 1]; floats keep their dtype."""
    rows = [_channels_first(image) for image in listed(images)]
    if len({row.shape for row in rows}) != 1:
        sizes = sorted({f"{row.shape[2]} x {row.shape[1]}" for row in rows})
        raise ValueError(f"images are {', '.join(sizes)}; make them the same size")
    return torch.stack(rows)


def fitted(image, height: int, width: int):
    """Returns the image in 8-bit RGB, stretched to the given size if it has another."""
    rgb = to_rgb(image)
    if rgb.size == (width, height):
        return image
    return rgb.resize((width, height), Image.Resampling.LANCZOS)


def listed(images) -> list:
    """Returns a list of images from one, a list, or a batch (B, ...) as an array or tensor."""
    several = isinstance(images, list | tuple) or getattr(images, "ndim", 3) == 4
    found = list(images) if several else [images]
    if not found:
        raise ValueError("there is no image; give one or several")
    return found


def _channels_first(image) -> Tensor:
    """Returns one image as (3, H, W) float32 in [0, 1]."""
    values = _array(image)
    floats = isinstance(values, np.ndarray) and np.issubdtype(values.dtype, np.floating)
    if not floats:
        return torch.from_numpy(np.array(to_rgb(image))).permute(2, 0, 1).float() / 255
    values = _in_range(_channels_last(values, "image"), "image").astype(np.float32)
    values = values[..., None] if values.ndim == 2 else values[..., :3]
    return torch.from_numpy(np.ascontiguousarray(values)).permute(2, 0, 1).expand(3, -1, -1)


def _array(image):
    """Returns a tensor as an array, and other objects unchanged."""
    if not isinstance(image, Tensor):
        return image
    if image.is_meta:
        raise TypeError("the image is a tensor on the device meta, which holds no pixels")
    image = image.detach().cpu()
    narrow = image.is_floating_point() and image.dtype.itemsize < 4
    return np.asarray(image.float() if narrow else image)


def _check_size(width: int, height: int, what: str) -> None:
    if width < 1 or height < 1:
        raise ValueError(f"the {what} has {width} x {height} pixels; expected at least one")
    limits.hold("pixels", width * height, f"the {what} has {width} x {height} pixels")


def _from_pil(image: Image.Image, what: str) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":  # PIL would clip these at 255
        values = np.asarray(image)
        if image.mode == "F" and 1 + OVERSHOOT < values.max() <= 255:  # as PIL itself converts
            values = values / 255
        if image.mode.startswith("I;16"):
            values = np.round(values / 257).astype(np.uint8)
        return _from_array(values, what).convert("RGB")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    if image.mode == "La":  # PIL knows no way from it to RGB
        image = image.convert("LA")
    with explained(f"the {what} cannot be read", "check its file"):
        return image.convert("RGB")


def _from_array(array: np.ndarray, what: str) -> Image.Image:
    array = _channels_last(array, what)
    return Image.fromarray(np.ascontiguousarray(_to_bytes(array, what)))


def _channels_last(array: np.ndarray, what: str) -> np.ndarray:
    """Returns (H, W), (H, W, 3) or (H, W, 4). Raises ValueError for another shape."""
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[-1] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    elif array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[1] == array.shape[2]:
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))):
        raise ValueError(
            f"the {what} is an array of shape {array.shape}; expected (H, W), (H, W, C) or "
            "(C, H, W) with 1, 3 or 4 channels"
        )
    _check_size(array.shape[1], array.shape[0], what)
    return array


def _to_bytes(array: np.ndarray, what: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if np.issubdtype(array.dtype, np.floating):
        return np.round(_in_range(array, what) * 255).astype(np.uint8)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"the {what} holds {array.dtype} numbers; expected integers or floats")
    low, high = array.min(), array.max()
    if high > 255 and low >= 0 and high <= 65535:
        return np.round(array / 257).astype(np.uint8)
    if low >= 0 and high <= 255:
        return array.astype(np.uint8)
    raise ValueError(
        f"the {what}'s values run from {low} to {high}; expected 0 to 255, or 0 to 65535"
    )


def _in_range(array: np.ndarray, what: str) -> np.ndarray:
    """Returns floats from 0 to 1 with small overshoot clipped.

    Raises ValueError for NaN and other ranges.
    """
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        raise ValueError(f"the {what} holds NaN or infinity; expected floats from 0 to 1")
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        raise ValueError(
            f"the {what}'s values run from {low:g} to {high:g}; floats are expected from 0 to 1, "
            "so divide by 255, add 1 and halve, or convert to uint8"
        )
    return array.clip(0, 1)


def crop(image: Image.Image, sides: tuple[int, int], share: float = 0.5) -> Image.Image:
    """Crops the largest window with the proportions of `sides` (height, width) and resizes it to
    them.

    `share` places the window along the longer side: 0 is the left or upper end, 0.5 the middle, 1
    the other end. Cropping and resizing are one step, so a very long image costs no more than any
    other.
    """
    width, height = image.size
    if width * sides[0] >= height * sides[1]:
        down, across = height, height * sides[1] / sides[0]
    else:
        down, across = width * sides[0] / sides[1], width
    left, top = share * (width - across), share * (height - down)
    box = (left, top, left + across, top + down)
    return image.resize((sides[1], sides[0]), Image.Resampling.BICUBIC, box=box)


def captioned(image: Image.Image, text: str, lines: int = 3) -> Image.Image:
    """Returns the image with a caption below it on white, wrapped to at most so many lines."""
    font = ImageFont.load_default(max(10, image.width // 24))
    letter = max(1, round(font.getlength("n" * 20) / 20))
    wrapped = textwrap.wrap(text, max(8, image.width // letter))[:lines]
    height = int(font.getbbox("Ag")[3]) + 3
    sheet = Image.new("RGB", (image.width, image.height + lines * height + 4), "white")
    sheet.paste(image, (0, 0))
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(wrapped):
        pen.text((1, image.height + 2 + number * height), line, fill="black", font=font)
    return sheet


def grid(images: list[Image.Image], gap: int = 4, columns: int | None = None) -> Image.Image:
    """Arranges images of one size in a grid on white, nearly square unless `columns` is given."""
    columns = columns or int(np.ceil(np.sqrt(len(images))))
    rows = -(-len(images) // columns)
    w, h = images[0].size
    size = (columns * (w + gap) - gap, rows * (h + gap) - gap)
    sheet = Image.new("RGB", size, "white")
    for i, image in enumerate(images):
        sheet.paste(image, (i % columns * (w + gap), i // columns * (h + gap)))
    return sheet
