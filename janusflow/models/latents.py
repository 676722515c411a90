"""Converts between images and latents; the only place with an autoencoder's scale, shift, mean and
deviation.

An autoencoder's own code z and the latents that the network sees are related as in diffusers by

    latents = (z - shift_factor) * scaling_factor                          or
    latents = (z - latents_mean) / latents_std * scaling_factor

where the second holds if the configuration has a mean and deviation per channel. Pixels are in [-1,
1].
"""

import copy

import torch
from torch import Tensor, nn


def _affine(vae: nn.Module, like: Tensor) -> tuple[float | Tensor, float | Tensor]:
    """Returns (shift, scale) of latents = (z - shift) * scale; (1, c, 1, 1) if channels differ."""
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
    """Converts the autoencoder's code z to latents, both (B, c, h, w)."""
    shift, scale = _affine(vae, z)
    return (z - shift) * scale


def to_code(vae: nn.Module, latents: Tensor) -> Tensor:
    """Converts latents to the autoencoder's code z, both (B, c, h, w)."""
    shift, scale = _affine(vae, latents)
    return latents / scale + shift


def encode(vae: nn.Module, pixels: Tensor) -> Tensor:
    """Encodes (B, 3, H, W) in [-1, 1] to (B, c, h, w) in float32, by the mode."""
    vae = upcast(vae)
    return from_code(vae, vae.encode(pixels.to(vae.dtype)).latent_dist.mode().float())


def decode(vae: nn.Module, latents: Tensor) -> Tensor:
    """Decodes latents (B, c, h, w) to pixels (B, 3, H, W) in float32, about in [-1, 1]."""
    vae = upcast(vae)
    return vae.decode(to_code(vae, latents.to(vae.dtype)), return_dict=False)[0].float()


def upcast(vae: nn.Module) -> nn.Module:
    """Returns the autoencoder, or a float32 copy of a float16 one, because SDXL's overflows in
    float16.

    As in diffusers, `force_upcast=False` in the configuration keeps float16. The original is never
    changed.
    """
    if vae.dtype != torch.float16 or vae.config.get("force_upcast", True) is False:
        return vae
    return copy.deepcopy(vae).float()


def pixels_per_latent(vae: nn.Module) -> int:
    """Returns how many pixels one latent covers along each side."""
    config = vae.config
    if "block_out_channels" in config:
        return 2 ** (len(config.block_out_channels) - 1)
    return config.patch_size
