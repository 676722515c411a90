"""Converts images to the tokens of Janus-Pro's VQ model.

The model may work on folded patches: p x p pixels become channels, so that the network has one
level.
"""

import torch
from torch import Tensor, nn


def fold(pixels: Tensor, patch: int) -> Tensor:
    """(B, 3, H, W) -> (B, 3 p^2, H / p, W / p)."""
    return nn.functional.pixel_unshuffle(pixels, patch)


def tokens(vq, folded: Tensor) -> Tensor:
    """Returns the codes (B, n) with the largest cosine similarity, in reading order."""
    z = vq.quant_conv(vq.encoder(folded)).flatten(2).transpose(1, 2)
    table = vq.quantize.embedding  # called, and not read, for the sake of offloading's hooks
    codes = nn.functional.normalize(table(torch.arange(table.num_embeddings, device=z.device)))
    return (nn.functional.normalize(z, dim=-1) @ codes.T).argmax(dim=-1)
