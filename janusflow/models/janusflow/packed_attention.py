"""Causal attention within segments, so that samples packed into one sequence do not see each other.

Segments of equal length are stacked and run as one causal batch: the cost is the sum of their
squared lengths instead of the square of the pack, and no mask of the pack's size is built. It is an
attention implementation of transformers, so gradient checkpointing works; without `segments` it is
`sdpa`.
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
    """The places of a flattened batch (rows x width) that form samples.

    `order` holds the places of all segments, grouped by length; `shapes` is (segments, length) of
    each group; `inverse` is for every place its index in `order`, or len(order) for padding.
    """

    order: Tensor
    shapes: tuple[tuple[int, int], ...]
    inverse: Tensor

    @classmethod
    def of(cls, starts: list[int], lengths: list[int], places: int) -> Segments:
        """Builds segments that begin at these places of a flattened batch of `places` tokens."""
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
        """(rows, heads, width, d) -> one tensor (segments, heads, length, d) for each group."""
        flat = x.transpose(1, 2).flatten(0, 1).index_select(0, self.order)
        parts = flat.split([count * length for count, length in self.shapes])
        return [
            part.unflatten(0, shape).transpose(1, 2)
            for part, shape in zip(parts, self.shapes, strict=True)
        ]

    def scatter(self, parts: list[Tensor], rows: int) -> Tensor:
        """Groups (segments, length, heads, d) -> (rows, width, heads, d), with zeros at padding."""
        flat = [part.flatten(0, 1) for part in parts]
        flat.append(flat[0].new_zeros(1, *flat[0].shape[1:]))
        return torch.cat(flat).index_select(0, self.inverse).unflatten(0, (rows, -1))


def packed_attention(module, query, key, value, attention_mask, *, segments=None, **kwargs):
    """The attention function that transformers calls; with `segments` the mask is ignored."""
    if segments is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    kept, wide = query.dtype, _training_dtype(query)
    groups = zip(*(segments.gather(x.to(wide)) for x in (query, key, value)), strict=True)
    parts = [sdpa_attention_forward(module, *group, None, **kwargs)[0] for group in groups]
    return segments.scatter(parts, len(query)).to(kept), None


def _training_dtype(x: Tensor) -> torch.dtype:
    """Returns float32 for bfloat16 with gradients on a CPU.

    torch's kernel takes four times as long in bfloat16 (70 segments of 31 tokens, 8 heads of 32: 38
    ms against 11 ms).
    """
    slow = x.device.type == "cpu" and x.dtype == torch.bfloat16 and torch.is_grad_enabled()
    return torch.float32 if slow else x.dtype


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def use_packed_attention(model) -> None:
    """Makes the language model of a JanusFlowModel attend within segments whenever it is given
    some.

    Otherwise, generation included, it behaves as `sdpa`. Raises ValueError for a model that was
    loaded with another attention.
    """
    now = model.language_model.config._attn_implementation
    if now not in ("sdpa", NAME):
        raise ValueError(
            f"attn_implementation is {now!r}, which cannot attend within packed samples; load the "
            "model with attn_implementation='sdpa'"
        )
    model.language_model.set_attn_implementation(NAME)
