"""Gives other autoencoders of diffusers the interface of AutoencoderKL, with their own statistics.

DC-AE has no distribution, Qwen-Image's and Wan's take videos of one frame, and FLUX.2's latents are
folded two by two and normalised by a batch norm. Here all of them encode (B, 3, H, W) in [-1, 1] to
latents (B, c, h, w) of about unit variance, so callers need not distinguish them.
"""

from __future__ import annotations

from pathlib import Path

import diffusers
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from janusflow.models.autoencoder import Deterministic
from janusflow.utils.keywords import choice

KINDS = ("AutoencoderDC", "AutoencoderKLFlux2", "AutoencoderKLQwenImage", "AutoencoderKLWan")


class AdaptedAutoencoder(ModelMixin, ConfigMixin):
    """An autoencoder of one of the `KINDS`, built from and saved with its own `settings`."""

    @register_to_config
    def __init__(
        self,
        kind: str,
        settings: dict,
        latent_channels: int = 0,  # of the latents that come out, told by `adapt`
        patch_size: int = 0,  # pixels per latent and side, likewise
        scaling_factor: float = 1.0,  # noqa: ARG002 (the statistics are applied here)
    ):
        super().__init__()
        choice("no autoencoder named", kind, KINDS)
        self.inner: nn.Module = getattr(diffusers, kind).from_config(settings)
        self.folds = 2 if kind == "AutoencoderKLFlux2" else 1
        self.films = kind in ("AutoencoderKLQwenImage", "AutoencoderKLWan")
        channels = self.inner.config.get("z_dim") or self.inner.config.latent_channels
        self.register_to_config(
            latent_channels=latent_channels or channels * self.folds**2,
            patch_size=patch_size or _pixels(self.inner) * self.folds,
        )

    @classmethod
    def adapt(cls, inner: nn.Module) -> AdaptedAutoencoder:
        """Wraps an autoencoder that is already loaded; its weights are shared, not copied."""
        with torch.device("meta"):
            adapted = cls(type(inner).__name__, dict(inner.config))
        adapted.inner = inner
        return adapted.eval()

    def save_pretrained(self, folder: str | Path, **kwargs) -> None:
        """Saves the wrapped autoencoder's own folder, which diffusers can read."""
        self.inner.save_pretrained(folder, **kwargs)

    @apply_forward_hook
    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple:
        out = self.inner.encode(x[:, :, None] if self.films else x)
        z = out.latent if hasattr(out, "latent") else out.latent_dist.mode()
        z = z[:, :, 0] if self.films else z
        z = nn.functional.pixel_unshuffle(z, self.folds)
        mean, deviation = self._statistics(z)
        found = Deterministic((z - mean) / deviation)
        return AutoencoderKLOutput(found) if return_dict else (found,)

    @apply_forward_hook
    def decode(
        self, z: Tensor, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> DecoderOutput | tuple:
        del generator  # the interface's; nothing here is random
        mean, deviation = self._statistics(z)
        z = nn.functional.pixel_shuffle(z * deviation + mean, self.folds)
        sample = self.inner.decode(z[:, :, None] if self.films else z, return_dict=False)[0]
        sample = sample[:, :, 0] if self.films else sample
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and deviation of the code's channels, (1, c, 1, 1) each."""
        config = self.inner.config
        if self.folds > 1:
            norm = self.inner.bn
            mean, deviation = norm.running_mean, (norm.running_var + config.batch_norm_eps).sqrt()
        elif self.films:
            mean, deviation = config.latents_mean, config.latents_std
        else:
            mean, deviation = [0.0], [1 / config.scaling_factor]
        place = dict(dtype=like.dtype, device=like.device)
        parts = (torch.as_tensor(x, **place) for x in (mean, deviation))
        return tuple(part.view(1, -1, 1, 1) for part in parts)


def _pixels(inner: nn.Module) -> int:
    """Returns the pixels per value of the code along each side."""
    config = inner.config
    levels = (
        config.get("dim_mult")
        or config.get("encoder_block_out_channels")
        or config.block_out_channels
    )
    return 2 ** (len(levels) - 1) * (config.get("patch_size") or 1 if "z_dim" in config else 1)
