"""Keys and values of a whole drawing, set aside before it starts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Slots:
    """One place per row and position, handed to transformers' blocks as their cache.

    A block asks `update` to note its new keys and values and gets back those so far, as views: the
    places not yet reached are never read, so nothing has to mask them. Prompts end side by side at
    `start`, whatever their length.
    """

    def __init__(self, layers: int, shape: tuple[int, int, int, int], start: int, like: Tensor):
        """`shape` is (rows, heads, positions, head size), `like` gives dtype and device."""
        self.keys = [like.new_zeros(shape) for _ in range(layers)]
        self.values = [like.new_zeros(shape) for _ in range(layers)]
        self.seen = start

    def put(self, rows: Sequence[int], prompt, source: int) -> None:
        """Row `source` of a prompt's cache into these rows, its end at `seen`."""
        for place, layer in enumerate(prompt.layers):
            begin = self.seen - layer.keys.shape[2]
            self.keys[place][rows, :, begin : self.seen] = layer.keys[source]
            self.values[place][rows, :, begin : self.seen] = layer.values[source]

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_, **__) -> tuple:
        """transformers' protocol: notes (rows, heads, 1, size), returns all up to `seen`."""
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        keys[:, :, self.seen - 1] = key[:, :, 0]
        values[:, :, self.seen - 1] = value[:, :, 0]
        return keys[:, :, : self.seen], values[:, :, : self.seen]


def slots(model, rows: int, start: int, length: int, like: Tensor) -> Slots:
    """Places for `length` positions of a llama, of which the prompts take the first `start`."""
    config = model.config
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    shape = (rows, config.num_key_value_heads, length, size)
    return Slots(config.num_hidden_layers, shape, start, like)


def padding(lengths: Sequence[int], total: int, like: Tensor) -> Tensor | None:
    """0 where a row's keys count and -inf before its prompt, (rows, 1, 1, total).

    None where all prompts are equally long: then there is nothing to hide.
    """
    start = max(lengths)
    if min(lengths) == start:
        return None
    places = torch.arange(total, device=like.device)
    begins = torch.tensor([start - n for n in lengths], device=like.device)
    mask = like.new_zeros(len(lengths), total)
    return mask.masked_fill(places < begins[:, None], float("-inf"))[:, None, None]
