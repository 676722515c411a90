"""Decoding within a memory limit: as many images at once as fit, or one image in tiles.

Nothing that threads share is modified: an autoencoder that decodes in tiles is a shallow copy with
its own settings and the same weights.
"""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from janusflow.models import latents as coding
from janusflow.pipelines.memory.forecasts import decoding, unbuilt

LEAST = 8  # latents along a tile's side


@dataclass(frozen=True, kw_only=True)
class DecodingPolicy:
    """How images are decoded: a limit in bytes above the weights, one by one, or in tiles."""

    limit: int | None = None  # bytes; None for as many images at once as there are
    slicing: bool = False  # one image at a time
    tiling: bool = False  # in tiles of the autoencoder's own size


def fitting(bytes_of: Callable[[int], int], limit: int, most: int) -> int:
    """Returns the largest number of images whose `bytes_of` is within `limit`; 0 if not one fits.

    Memory grows linearly with the images, so the values for one and two suffice.
    """
    one, two = bytes_of(1), bytes_of(2)
    return 0 if one > limit else min(most, 1 + (limit - one) // max(two - one, 1))


@torch.no_grad()
def decode(
    vae: nn.Module, z: Tensor, limit: int | None = None, *, slicing=False, tiling=False
) -> Tensor:
    """Decodes codes z (B, c, h, w) to pixels (B, 3, H, W) in float32, within `limit` bytes above
    the weights.

    As many images as fit are decoded at once. If not one fits it is decoded in tiles, with a
    warning, because normalisations over the whole image then see less. Raises ValueError if the
    smallest tiles need more.
    """
    if tiling:
        vae = tiled(vae)
    if limit is None:
        parts = z.split(1 if slicing else len(z))
        return torch.cat([vae.decode(part, return_dict=False)[0].float() for part in parts])
    scale, network = coding.pixels_per_latent(vae), unbuilt(type(vae).from_config, vae.config)
    pixels = z.new_empty(len(z), 3, *(side * scale for side in z.shape[2:]), dtype=torch.float32)
    rest = limit - pixels.nbytes

    def needs(count: int, *sides: int) -> int:
        return decoding(network, (count, z.shape[1], *(sides or z.shape[2:])), vae.dtype)

    at_once = fitting(needs, rest, 1 if slicing else len(z))
    if not at_once:
        vae = tiled(vae, _tile(lambda side: needs(1, side, side), vae, max(z.shape[2:]), rest))
    for part, out in zip(z.split(at_once or 1), pixels.split(at_once or 1), strict=True):
        out.copy_(vae.decode(part, return_dict=False)[0])
    return pixels


def _tile(needs: Callable[[int], int], vae: nn.Module, side: int, limit: int) -> int:
    """Returns the largest half, quarter, ... of an image that fits."""
    sides = (
        [side >> k for k in range(1, 8) if side >> k >= LEAST] if hasattr(vae, "blend_v") else []
    )
    for smaller in sides:
        if needs(smaller) <= limit:
            warnings.warn(
                f"an image is decoded in tiles of {smaller} latents to stay within the memory "
                "limit, which changes it a little",
                stacklevel=5,
            )
            return smaller
    least = needs(sides[-1] if sides else side)
    raise ValueError(
        f"decoding may take {max(limit, 0):,} bytes in addition to its images and needs {least:,}; "
        "raise the memory limit or make smaller images"
    )


def tiled(vae: nn.Module, side: int | None = None) -> nn.Module:
    """Returns a shallow copy of the autoencoder that decodes in tiles of `side` latents or its own
    size.

    An autoencoder of independent patches, which tiles would not change, is returned as it is.
    """
    if not hasattr(vae, "blend_v"):
        return vae
    other = copy.copy(vae)
    other.use_tiling = True
    if side is not None:
        other.tile_latent_min_size = side
        other.tile_sample_min_size = side * coding.pixels_per_latent(vae)
    return other
