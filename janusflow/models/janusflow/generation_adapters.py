"""The ConvNeXt encoder from latents to the language model, and the decoder from it to the
velocity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import repeat

import torch
from diffusers.models.embeddings import TimestepEmbedding
from torch import Tensor, nn

from janusflow.models.janusflow.configuration import GenerationSizes
from janusflow.models.norms import RMSNorm
from janusflow.utils.forward_mode import forward_mode


@dataclass(frozen=True)
class Times:
    """What the network computes from the times t alone, one row per sample or one for all.

    `embedding` is (B, D). `encoder` and `decoder` hold each block's scale and shift (B, 2 C) if
    they were computed in advance (`JanusFlowModel.times`); otherwise they are None and each block
    computes its own.
    """

    embedding: Tensor
    encoder: tuple[Tensor, ...] | None = None
    decoder: tuple[Tensor, ...] | None = None

    def __len__(self) -> int:
        return len(self.embedding)

    def __getitem__(self, rows: slice) -> Times:
        encoder, decoder = (
            known and tuple(x[rows] for x in known) for known in (self.encoder, self.decoder)
        )
        return Times(self.embedding[rows], encoder, decoder)


class GlobalResponseNorm(nn.Module):
    """out = bias + (weight * n + 1) * x with n = |x|_hw / mean_c |x|_hw, over x of shape (B, H, W,
    C).

    Woo et al. 2023 (ConvNeXt V2), section 3.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.bias = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        g = _norm(x)
        n = g / (g.mean(dim=-1, keepdim=True) + 1e-6)
        return torch.addcmul(self.bias, self.weight * n + 1, x)


def _norm(x: Tensor) -> Tensor:
    """|x| over height and width, (B, H, W, C) -> (B, 1, 1, C).

    torch's own norm is slow along these dimensions on a CPU (15 % of an evaluation of the packaged
    model); it has a gradient at zero and does not overflow in float16.
    """
    if torch.is_grad_enabled() or forward_mode() or x.dtype != torch.float32:
        return torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
    return x.square().sum((1, 2), keepdim=True).sqrt()


class ConvNextBlock(nn.Module):
    """A ConvNeXt V2 block on (B, C, H, W); the time embedding scales and shifts its sum."""

    def __init__(self, channels: int, time_channels: int, eps: float):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, kernel_size=7, padding=3, groups=channels)
        self.norm = RMSNorm(channels, eps)
        self.channelwise_linear_1 = nn.Linear(channels, 4 * channels)
        self.channelwise_act = nn.GELU()
        self.channelwise_norm = GlobalResponseNorm(4 * channels)
        self.channelwise_linear_2 = nn.Linear(4 * channels, channels)
        self.cond_embeds_mapper = nn.Linear(time_channels, 2 * channels)

    def modulation(self, time: Tensor) -> Tensor:
        """Scale and shift of the channels from the time embedding: (B, D) -> (B, 2 C)."""
        return self.cond_embeds_mapper(nn.functional.silu(time))

    def forward(self, x: Tensor, time: Tensor, known: Tensor | None = None) -> Tensor:
        """Applies the block; `known` is the `modulation` if it was computed in advance."""
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))  # (B, H, W, C)
        y = self.channelwise_act(self.channelwise_linear_1(y))  # (B, H, W, 4 C)
        y = self.channelwise_linear_2(self.channelwise_norm(y))
        y = x + y.permute(0, 3, 1, 2)
        both = self.modulation(time) if known is None else known
        scale, shift = both[..., None, None].chunk(2, 1)
        return y * (1 + scale) + shift


class ConvNextBlocks(nn.Module):
    def __init__(self, layers: int, channels: int, time_channels: int, eps: float):
        super().__init__()
        self.res_blocks = nn.ModuleList(
            ConvNextBlock(channels, time_channels, eps) for _ in range(layers)
        )

    def modulations(self, time: Tensor) -> tuple[Tensor, ...]:
        return tuple(block.modulation(time) for block in self.res_blocks)

    def forward(self, x: Tensor, time: Tensor, known: tuple[Tensor, ...] | None = None) -> Tensor:
        for block, own in zip(self.res_blocks, known or repeat(None), strict=False):
            x = block(x, time, own)
        return x


def sinusoids(t: Tensor, channels: int) -> Tensor:
    """cos(w_k t), then sin(w_k t), with w_k = 10000^(-2 k / channels): (B,) -> (B, channels).

    The result has t's dtype; the frequencies are rounded to float32, as published. An odd number of
    channels ends with a zero. Ho et al. 2020, after Vaswani et al. 2017, section 3.5.
    """
    half = channels // 2
    exponents = -math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t[:, None] * torch.exp(exponents / half)
    waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return nn.functional.pad(waves, (0, channels % 2))


class GenerationEncoder(nn.Module):
    """Encodes latents (B, c, H, W) at t (B,) or `Times` to (B, C, H / p, W / p) and `Times`."""

    def __init__(self, sizes: GenerationSizes, hidden: int):
        super().__init__()
        self.time_channels = sizes.channels
        self.time_embed = TimestepEmbedding(sizes.channels, hidden)
        self.in_conv = nn.Conv2d(
            sizes.latent_channels, sizes.channels, sizes.patch, stride=sizes.patch
        )
        self.mid_block = ConvNextBlocks(
            sizes.encoder_layers, sizes.channels, hidden, sizes.norm_eps
        )

    def embed(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        """Embeds times: (B,) -> (B, D)."""
        t = t.to(torch.promote_types(dtype, torch.float32))  # a narrow t would be another time
        return self.time_embed(sinusoids(1000 * t, self.time_channels).to(dtype))

    def forward(self, latents: Tensor, t: Tensor | Times) -> tuple[Tensor, Times]:
        times = t if isinstance(t, Times) else Times(self.embed(t, latents.dtype))
        return self.mid_block(self.in_conv(latents), times.embedding, times.encoder), times


class VelocityHead(nn.Module):
    """RMSNorm, 1x1 convolution and pixel shuffle: (B, C, H, W) -> (B, c, p H, p W)."""

    def __init__(self, channels: int, latent_channels: int, patch: int, eps: float):
        super().__init__()
        self.norm = RMSNorm(channels, eps)
        self.unpatch_conv = nn.Conv2d(channels, latent_channels * patch**2, kernel_size=1)
        self.patch = patch

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return nn.functional.pixel_shuffle(self.unpatch_conv(x), self.patch)


class GenerationDecoder(nn.Module):
    """Decodes (B, C, h, w), with the encoder's features as skip, to velocity (B, c, p h, p w)."""

    def __init__(self, sizes: GenerationSizes, hidden: int):
        super().__init__()
        wide = 2 * sizes.channels
        self.input_norm = RMSNorm(sizes.channels, sizes.norm_eps)
        self.mid_block = ConvNextBlocks(sizes.decoder_layers, wide, hidden, sizes.norm_eps)
        head = VelocityHead(wide, sizes.latent_channels, sizes.patch, sizes.norm_eps)
        self.out_convs = nn.ModuleList([head])

    def forward(self, x: Tensor, skip: Tensor, times: Times) -> Tensor:
        x = self.input_norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.mid_block(torch.cat([x, skip], dim=1), times.embedding, times.decoder)
        return self.out_convs[0](x)
