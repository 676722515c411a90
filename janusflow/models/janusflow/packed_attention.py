"""Causal attention inside segments: what packed sequences need so that nothing leaks.

Segments of one length are stacked and run as one causal batch, so that the cost is the sum of
their squares, not the square of the pack, and no mask of the pack's size exists. It is an
attention implementation of transformers: gradient checkpointing recomputes it, and without
`segments` it is its `sdpa`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "janusflow_packed"


@dataclass(frozen=True)
class Segments:
    """Places of a flattened batch (rows x width) that form samples.

    `order`: places of all segments, those of one length together; `shapes`: (segments, length) of
    each such group; `inverse`: for every place its index in `order`, or len(order) for padding.
    """

    order: Tensor
    shapes: tuple[tuple[int, int], ...]
    inverse: Tensor

    @classmethod
    def of(cls, starts: list[int], lengths: list[int], places: int) -> Segments:
        """Segments that begin at these places of a flattened batch of `places` tokens."""
        groups: dict[int, list[int]] = {}
        for start, length in zip(starts, lengths, strict=True):
            groups.setdefault(length, []).append(start)
        parts = [
            (torch.tensor(begins)[:, None] + torch.arange(length)).flatten()
            for length, begins in groups.items()
        ]
        order = torch.cat(parts)
        inverse = torch.full((places,), len(order))
        inverse[order] = torch.arange(len(order))
        shapes = tuple((len(begins), length) for length, begins in groups.items())
        return cls(order, shapes, inverse)

    def to(self, device: torch.device) -> Segments:
        return Segments(self.order.to(device), self.shapes, self.inverse.to(device))

    def gather(self, x: Tensor) -> list[Tensor]:
        """(rows, heads, width, d) -> for each group (segments, heads, length, d)."""
        flat = x.transpose(1, 2).flatten(0, 1).index_select(0, self.order)
        parts = flat.split([count * length for count, length in self.shapes])
        return [
            part.unflatten(0, shape).transpose(1, 2)
            for part, shape in zip(parts, self.shapes, strict=True)
        ]

    def scatter(self, parts: list[Tensor], rows: int) -> Tensor:
        """Groups (segments, length, heads, d) -> (rows, width, heads, d), zero at the padding."""
        flat = [part.flatten(0, 1) for part in parts]
        flat.append(flat[0].new_zeros(1, *flat[0].shape[1:]))
        return torch.cat(flat).index_select(0, self.inverse).unflatten(0, (rows, -1))


def packed_attention(module, query, key, value, attention_mask, *, segments=None, **kwargs):
    """transformers' attention function; with `segments` the mask is not read."""
    if segments is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    kept, wide = query.dtype, _training_dtype(query)
    groups = zip(*(segments.gather(x.to(wide)) for x in (query, key, value)), strict=True)
    parts = [sdpa_attention_forward(module, *group, None, **kwargs)[0] for group in groups]
    return segments.scatter(parts, len(query)).to(kept), None


def _training_dtype(x: Tensor) -> torch.dtype:
    """float32 for bfloat16 with gradients on a CPU, where torch's kernel takes four times as long
    as in float32 (70 segments of 31 tokens, 8 heads of 32: 38 ms against 11 ms).
    """
    slow = x.device.type == "cpu" and x.dtype == torch.bfloat16 and torch.is_grad_enabled()
    return torch.float32 if slow else x.dtype


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def use_packed_attention(model) -> None:
    """Lets the language model of a JanusFlowModel attend by segments where it is given some.

    Elsewhere, generation included, it goes on as with `sdpa`. ValueError for a model that was
    loaded with another attention.
    """
    now = model.language_model.config._attn_implementation
    if now not in ("sdpa", NAME):
        raise ValueError(
            f"the model attends by {now!r}; load it with attn_implementation='sdpa' to pack"
        )
    model.language_model.set_attn_implementation(NAME)
