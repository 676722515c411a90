"""Keys and values of a whole image, allocated before its first token."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Slots:
    """One slot per row and position, passed to transformers' blocks as their cache.

    A block calls `update` with its new keys and values and gets all so far, as views; later slots
    are never read, so they need no mask. Prompts of any length all end at `start`.
    """

    def __init__(self, layers: int, shape: tuple[int, int, int, int], start: int, like: Tensor):
        """Allocates slots (rows, heads, positions, head size) of the dtype and device of `like`."""
        self.keys = [like.new_zeros(shape) for _ in range(layers)]
        self.values = [like.new_zeros(shape) for _ in range(layers)]
        self.seen = start

    def put(self, rows: Sequence[int], prompt, source: int) -> None:
        """Copies row `source` of a prompt's cache into these rows, so that it ends at `seen`."""
        for place, layer in enumerate(prompt.layers):
            begin = self.seen - layer.keys.shape[2]
            self.keys[place][rows, :, begin : self.seen] = layer.keys[source]
            self.values[place][rows, :, begin : self.seen] = layer.values[source]

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_, **__) -> tuple:
        """transformers' protocol: stores (rows, heads, 1, size), returns everything so far."""
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        keys[:, :, self.seen - 1] = key[:, :, 0]
        values[:, :, self.seen - 1] = value[:, :, 0]
        return keys[:, :, : self.seen], values[:, :, : self.seen]


def slots(model, rows: int, start: int, length: int, like: Tensor) -> Slots:
    """Returns slots for `length` positions of a Llama; the first `start` are the prompts'."""
    config = model.config
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    shape = (rows, config.num_key_value_heads, length, size)
    return Slots(config.num_hidden_layers, shape, start, like)


def padding(lengths: Sequence[int], total: int, like: Tensor) -> Tensor | None:
    """A mask (rows, 1, 1, total): -inf before a row's prompt, else 0; None for equal lengths."""
    start = max(lengths)
    if min(lengths) == start:
        return None
    places = torch.arange(total, device=like.device)
    begins = torch.tensor([start - n for n in lengths], device=like.device)
    mask = like.new_zeros(len(lengths), total)
    return mask.masked_fill(places < begins[:, None], float("-inf"))[:, None, None]
