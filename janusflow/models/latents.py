"""Images to latents and back: the one place of an autoencoder's scale, shift, mean and deviation.

An autoencoder's own code z and the latents that the network sees are related as in diffusers by

    latents = (z - shift_factor) * scaling_factor                          or
    latents = (z - latents_mean) / latents_std * scaling_factor

where its configuration has a mean and deviation for each channel. Pixels are in [-1, 1].
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def _affine(vae: nn.Module, like: Tensor) -> tuple[float | Tensor, float | Tensor]:
    """(shift, scale) of latents = (z - shift) * scale; (1, c, 1, 1) where channels differ."""
    config = vae.config
    shift, scale = config.get("shift_factor") or 0.0, config.get("scaling_factor") or 1.0
    mean, deviation = config.get("latents_mean"), config.get("latents_std")
    if mean is not None:
        shift = torch.tensor(mean, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)
    if deviation is not None:
        wide = torch.tensor(deviation, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)
        scale = scale / wide
    return shift, scale


def from_code(vae: nn.Module, z: Tensor) -> Tensor:
    """Latents of the autoencoder's code z, both (B, c, h, w)."""
    shift, scale = _affine(vae, z)
    return (z - shift) * scale


def to_code(vae: nn.Module, latents: Tensor) -> Tensor:
    """The autoencoder's code of latents, both (B, c, h, w)."""
    shift, scale = _affine(vae, latents)
    return latents / scale + shift


def encode(vae: nn.Module, pixels: Tensor) -> Tensor:
    """Latents (B, c, h, w) in float32 of pixels (B, 3, H, W) in [-1, 1]: the code's mode."""
    vae = upcast(vae)
    return from_code(vae, vae.encode(pixels.to(vae.dtype)).latent_dist.mode().float())


def decode(vae: nn.Module, latents: Tensor) -> Tensor:
    """Pixels (B, 3, H, W) in float32, about in [-1, 1], of latents (B, c, h, w)."""
    vae = upcast(vae)
    return vae.decode(to_code(vae, latents.to(vae.dtype)), return_dict=False)[0].float()


def upcast(vae: nn.Module) -> nn.Module:
    """The autoencoder, or a copy in float32 of one in float16, in which the SDXL one overflows.

    diffusers' convention: one whose configuration says `force_upcast=False` stays in float16. The
    autoencoder itself is never changed.
    """
    if vae.dtype != torch.float16 or vae.config.get("force_upcast", True) is False:
        return vae
    return copy.deepcopy(vae).float()


def pixels_per_latent(vae: nn.Module) -> int:
    """Pixels per latent and side."""
    config = vae.config
    if "block_out_channels" in config:
        return 2 ** (len(config.block_out_channels) - 1)
    return config.patch_size
