"""Prepares images for the vision tower as in its training, with PIL as published."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from janusflow.utils.images import listed, to_rgb
from janusflow.utils.text import explained, printable
from janusflow.utils.typed import is_number

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
LARGEST = 1e6  # of numbers that pixels are divided by
FIXED = dict(do_resize=True, do_pad=True, do_center_crop=False)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class JanusFlowImageProcessor:
    """Resizes, pads to a square, rescales and normalises images, by default as published."""

    image_size: int  # side of the square, pixels
    min_size: int = 14  # no side of the resized image is shorter
    image_mean: tuple[float, ...] | None = CLIP_MEAN
    image_std: tuple[float, ...] | None = CLIP_STD
    rescale_factor: float = 1 / 255
    do_rescale: bool = True
    do_normalize: bool = True

    def __post_init__(self):
        sizes = (self.image_size, self.min_size)
        if not all(type(size) is int for size in sizes) or not 1 <= sizes[1] <= sizes[0] <= 4096:
            raise ValueError(
                f"image_size is {sizes[0]!r:.40} and min_size {sizes[1]!r:.40}; expected whole "
                "numbers, 1 <= min_size <= image_size <= 4096"
            )
        self._check_numbers()
        if not all(isinstance(x, bool) for x in (self.do_rescale, self.do_normalize)):
            raise ValueError("do_rescale and do_normalize are not booleans; expected true or false")

    def _check_numbers(self) -> None:
        """Raises ValueError unless the means lie among the pixels and the deviations above zero."""
        if not is_number(self.rescale_factor) or not 0 < self.rescale_factor <= 1:
            raise ValueError(
                f"rescale_factor is {self.rescale_factor!r:.40}; expected a number above 0 and at "
                "most 1, such as 1/255"
            )
        white = 255 * self.rescale_factor if self.do_rescale else 255
        for name, low, high in (("image_mean", 0, 1.001 * white), ("image_std", 1e-6, LARGEST)):
            values = getattr(self, name) or ()
            if not all(is_number(n) and low <= n <= high for n in values):
                shown = printable(", ".join(map(str, values)), 60)
                raise ValueError(
                    f"{name} is {shown}; expected a number from {low:g} to {high:.4g} for each "
                    "colour, as pixels are scaled first"
                )

    @classmethod
    def from_dict(cls, config: Mapping) -> "JanusFlowImageProcessor":
        """Reads the settings of preprocessor_config.json.

        Raises ValueError for invalid ones, and for what other image processors do to an image.
        `background_color` is ignored deliberately: the published class always computes it from the
        mean.
        """
        if not isinstance(config, Mapping):
            raise ValueError(f"the image processor is {config!r:.40}; expected a block of settings")
        for name, own in FIXED.items():
            if config.get(name, own) not in (own, None):
                raise ValueError(
                    f"preprocessor_config.json holds {name} {config[name]!r:.40}, and images are "
                    f"always resized to a padded square here; expected {own!r}"
                )
        with explained(
            "preprocessor_config.json lacks a value or has an invalid one",
            "it needs image_size as a whole number, image_mean and image_std as three numbers",
            KeyError,
            TypeError,
        ):
            size = config["image_size"] if "image_size" in config else config["size"]["height"]
            known = {
                name: config[name]
                for name in cls.__dataclass_fields__
                if config.get(name) is not None
            }
            for name in ("image_mean", "image_std"):
                if name in config:
                    known[name] = _channels(config[name])
            return cls(**{**known, "image_size": size})

    @property
    def background(self) -> tuple[int, ...]:
        if self.image_mean is None:
            return (127, 127, 127)
        return tuple(int(255 * mean) for mean in self.image_mean)

    def __call__(self, images) -> Tensor:
        """Prepares one image or several (PIL, arrays or tensors) as (N, 3, S, S) float32."""
        if isinstance(images, list | tuple) and not images:
            return torch.empty(0, 3, self.image_size, self.image_size)
        return torch.from_numpy(np.stack([self.one(image) for image in listed(images)]))

    def one(self, image) -> np.ndarray:
        """Resizes and normalises one image to (3, S, S) float32."""
        return self.normalised(self.square(to_rgb(image)))

    def normalised(self, image: Image.Image) -> np.ndarray:
        """Rescales and normalises an RGB image to (3, H, W) float32 without resizing it."""
        pixels = np.asarray(image).transpose(2, 0, 1)
        if self.do_rescale:
            pixels = pixels * float(
                self.rescale_factor
            )  # in float64, then rounded once, as published
        pixels = pixels.astype(np.float32)
        if self.do_normalize and self.image_mean is not None:
            mean = np.array(self.image_mean, np.float32)[:, None, None]
            std = np.array(self.image_std or CLIP_STD, np.float32)[:, None, None]
            pixels = (pixels - mean) / std
        return pixels

    def square(self, image: Image.Image) -> Image.Image:
        """Resizes the longer side to `image_size` and centres the image on a square of background
        colour.

        Sides are truncated, not rounded, as published (transformers 5.23 rounds).
        """
        longest = max(image.size)
        size = [max(int(side / longest * self.image_size), self.min_size) for side in image.size]
        image = image.resize(size, Image.Resampling.BICUBIC)
        canvas = Image.new("RGB", (max(size), max(size)), self.background)
        canvas.paste(image, tuple((max(size) - side) // 2 for side in size))
        return canvas


def _channels(values) -> tuple[float, ...] | None:
    if values is None:
        return None
    values = (values,) * 3 if isinstance(values, int | float) else values
    right = isinstance(values, list | tuple) and len(values) == 3
    if not right or not all(is_number(v) and abs(v) < LARGEST for v in values):
        raise TypeError(f"{values!r:.40} is not three small numbers")
    return tuple(float(value) for value in values)
