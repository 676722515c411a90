"""A linear autoencoder on 8 x 8 patches, behind diffusers' `AutoencoderKL` interface."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import AutoencoderMixin, DecoderOutput
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn


class Deterministic:
    """A distribution of one value: a deterministic code where a Gaussian is expected."""

    def __init__(self, point: Tensor):
        self.mean = point

    def mode(self) -> Tensor:
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:  # noqa: ARG002
        return self.mean


class PatchAutoencoder(ModelMixin, AutoencoderMixin, ConfigMixin):
    """Principal components of 8 x 8 patches: pixels (B, 3, 8 h, 8 w) in [-1, 1] <-> latents (B, c,
    h, w).

    It consists of two convolutions with stride 8, which `fit` sets in closed form. Component i is
    divided by its standard deviation to the power `whitening`: 0 keeps the pixels' scale, 1 gives
    all components unit variance. Patches are independent, so tiling (`enable_tiling`) would change
    neither image nor cost.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        patch_size: int = 8,
        scaling_factor: float = 1.0,  # noqa: ARG002 (kept in the configuration)
        whitening: float = 0.5,  # noqa: ARG002
    ):
        super().__init__()
        self.use_slicing = self.use_tiling = False
        shape = dict(kernel_size=patch_size, stride=patch_size)
        self.encoder = nn.Conv2d(3, latent_channels, **shape)
        self.decoder = nn.ConvTranspose2d(latent_channels, 3, **shape)

    @apply_forward_hook
    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple:
        distribution = Deterministic(self.encoder(x))
        return AutoencoderKLOutput(distribution) if return_dict else (distribution,)

    @apply_forward_hook
    def decode(
        self, z: Tensor, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> DecoderOutput | tuple:
        del generator  # the interface's; nothing here is random
        parts = z.split(1 if self.use_slicing else len(z))
        sample = torch.cat([self.decoder(part) for part in parts])
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    @torch.no_grad()
    def fit(self, images: Tensor) -> Tensor:
        """Sets the weights from images (N, 3, H, W) in [-1, 1]; returns the variance kept."""
        p, c = self.config.patch_size, self.config.latent_channels
        patches = nn.functional.unfold(images.double(), p, stride=p)  # (N, 3 p^2, n)
        patches = patches.transpose(1, 2).flatten(0, 1)
        color = patches.mean(dim=0).view(3, p * p).mean(dim=1)  # the decoder has one bias a colour
        values, vectors = torch.linalg.eigh(patches.T.cov())
        values, axes = values.flip(0), vectors.flip(1).T  # the largest first
        kept, axes = values[:c].sqrt(), axes[:c]
        scale = kept**self.config.whitening
        scale = scale * (kept / scale).square().mean().sqrt()  # latents of unit variance on average
        self.encoder.weight.copy_((axes / scale[:, None]).view(c, 3, p, p))
        self.encoder.bias.copy_(-(axes @ color.repeat_interleave(p * p)) / scale)
        self.decoder.weight.copy_((axes * scale[:, None]).view(c, 3, p, p))
        self.decoder.bias.copy_(color)
        return values[:c].sum() / values.sum()
