"""Root-mean-square norms that stay in float64 where the numbers are; others' round to float32."""

from __future__ import annotations

import torch
from diffusers.models.normalization import RMSNorm as DiffusersRMSNorm
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm


class _KeepsFloat64:
    """x / sqrt(mean x^2 + eps) * weight; as the class that it is mixed into, but for float64."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype is not torch.float64:
            return super().forward(x)
        eps = self.eps if hasattr(self, "eps") else self.variance_epsilon
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * self.weight


class RMSNorm(_KeepsFloat64, DiffusersRMSNorm):
    """The generation encoder's and decoder's."""


class LanguageRMSNorm(_KeepsFloat64, LlamaRMSNorm):
    """The language model's."""


def keep_float64(module: nn.Module) -> nn.Module:
    """Lets a Llama's norms inside keep float64; weights and names stay. Returns the module."""
    for part in module.modules():
        if type(part) is LlamaRMSNorm:
            part.__class__ = LanguageRMSNorm
    return module
