"""The keys and values of a prompt, computed once and used at every step."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from janusflow.utils.keywords import old_names

# what transformers' Llama calls its cache: `past_key_values` until 5.23, `cache` from 5.24 on
CACHE = next(
    name
    for name in ("cache", "past_key_values")
    if name in inspect.signature(LlamaDecoderLayer.forward).parameters
)


@dataclass(frozen=True, eq=False)
class PromptCache:
    """The keys and values of a prompt in every block. It is never modified.

    `keys[l]` and `values[l]` are (B, heads, L, head_dim) for block l. `mask` (B, L) is True where a
    key is seen; None means everywhere. `length` (B,) is the number of prompt tokens, which is the
    position of the time token that follows.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor | None
    length: Tensor

    def __len__(self) -> int:
        return self.length.shape[0]

    def __deepcopy__(self, _memo) -> PromptCache:
        return self

    @property
    def row_bytes(self) -> int:
        """The bytes of one row's keys and values."""
        return sum(x[0].nbytes for x in (*self.keys, *self.values))

    def __getitem__(self, rows) -> PromptCache:
        """Returns the rows of a slice, a list or an index tensor, in order, repeats included."""
        rows = torch.as_tensor(rows, device=self.length.device) if isinstance(rows, list) else rows
        return PromptCache(
            keys=tuple(k[rows] for k in self.keys),
            values=tuple(v[rows] for v in self.values),
            mask=None if self.mask is None else self.mask[rows],
            length=self.length[rows],
        )

    def first(self) -> PromptCache:
        """The unconditional prompt: each row's first token alone, with the row's length.

        Attention is causal, so the keys and values of the first token do not depend on those after
        it and need not be recomputed.
        """
        if self.mask is None:
            keys, values = ([x[:, :, :1] for x in kept] for kept in (self.keys, self.values))
        else:
            rows = torch.arange(len(self), device=self.length.device)
            start = self.mask.long().argmax(1)
            keys, values = (
                [x[rows, :, start][:, :, None] for x in kept] for kept in (self.keys, self.values)
            )
        return PromptCache(keys=tuple(keys), values=tuple(values), mask=None, length=self.length)

    def update(self, keys: Tensor, values: Tensor, layer: int, *_, **__) -> tuple[Tensor, Tensor]:
        """Returns the prompt's keys and values before the block's, like a cache; stores nothing."""
        shape = (len(keys), -1, -1, -1)
        return (
            torch.cat([self.keys[layer].expand(shape), keys], dim=2),
            torch.cat([self.values[layer].expand(shape), values], dim=2),
        )

    @staticmethod
    def cat(prompts: list[PromptCache]) -> PromptCache:
        """Joins prompts of any lengths into one batch, padded on the left and masked."""
        longest = max(prompt.keys[0].shape[2] for prompt in prompts)
        padded = [prompt.padded(longest) for prompt in prompts]
        masks = [prompt.mask for prompt in padded]
        mask = None if all(m is None for m in masks) else torch.cat([p.seen for p in padded])
        return PromptCache(
            keys=tuple(map(torch.cat, zip(*(p.keys for p in padded), strict=True))),
            values=tuple(map(torch.cat, zip(*(p.values for p in padded), strict=True))),
            mask=mask,
            length=torch.cat([p.length for p in padded]),
        )

    @property
    def seen(self) -> Tensor:
        """The mask (B, L), True where a key is seen, also if `mask` is None."""
        if self.mask is not None:
            return self.mask
        size = (len(self), self.keys[0].shape[2])
        return torch.ones(size, dtype=torch.bool, device=self.length.device)

    def padded(self, length: int) -> PromptCache:
        """Returns the same prompt padded on the left with masked keys to a given length."""
        missing = length - self.keys[0].shape[2]
        if missing == 0:
            return self

        def pad(x: Tensor) -> Tensor:
            return nn.functional.pad(x, (0, 0, missing, 0))

        mask = nn.functional.pad(self.seen, (missing, 0), value=False)
        return replace(
            self, keys=tuple(map(pad, self.keys)), values=tuple(map(pad, self.values)), mask=mask
        )


__getattr__ = old_names(__name__, {"Prompt": "PromptCache"})
