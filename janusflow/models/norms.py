"""Root-mean-square norms that compute in float64 for float64 inputs; other implementations round to
float32.
"""

from functools import lru_cache

import torch
from diffusers.models.normalization import RMSNorm as DiffusersRMSNorm
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

# Other families' classes whose arithmetic is Llama's.
SAME = ("Qwen2RMSNorm", "Qwen3RMSNorm", "MistralRMSNorm", "SmolLM3RMSNorm")


class _KeepsFloat64:
    """x / sqrt(mean x^2 + eps) * weight, as its base class, but in float64 for float64."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype is not torch.float64:
            return super().forward(x)
        eps = self.eps if hasattr(self, "eps") else self.variance_epsilon
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * self.weight


class RMSNorm(_KeepsFloat64, DiffusersRMSNorm):
    """The RMS norm of the generation encoder and decoder."""


class LanguageRMSNorm(_KeepsFloat64, LlamaRMSNorm):
    """The RMS norm of the language model."""


def keep_float64(module: nn.Module) -> nn.Module:
    """Makes the norms inside a Llama, Qwen, Mistral or SmolLM compute in float64 for float64
    inputs.

    Weights and names are unchanged. Returns the module.
    """
    for part in module.modules():
        kind = type(part)
        if kind is LlamaRMSNorm:
            part.__class__ = LanguageRMSNorm
        elif kind.__name__ in SAME and kind.__module__.startswith("transformers."):
            part.__class__ = _keeping(kind)
    return module


@lru_cache
def _keeping(kind: type) -> type:
    """Returns the class with float64 kept, under a name of this module, for pickling."""
    made = type(kind.__name__, (_KeepsFloat64, kind), {"__module__": __name__})
    globals()[kind.__name__] = made
    return made
