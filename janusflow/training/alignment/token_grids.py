"""Resamples and convolves tokens as two-dimensional grids."""

from math import isqrt

import torch
from torch import Tensor, nn

Grid = tuple[int, int]  # height and width in tokens


class OnGrid(nn.Module):
    """A convolution over tokens (B, n, D) of an image.

    `grid` is the image's height and width in tokens; without it the image is square.
    """

    def __init__(self, width: int, out: int):
        super().__init__()
        self.convolution = nn.Conv2d(width, out, kernel_size=3, padding=1)

    def forward(self, tokens: Tensor, grid: Grid | None = None) -> Tensor:
        return _to_tokens(self.convolution(_to_grid(tokens, grid)))


def resampled(tokens: Tensor, count: int, grid: Grid | None = None) -> Tensor:
    """Resamples tokens (B, n, D) of an image to (B, count, D) on a square grid.

    It is bilinear, and antialiased when there are fewer tokens. `grid` is the height and width in
    tokens of the input, by default a square. Raises ValueError for a number of tokens that is not a
    square if no grid is given.
    """
    if tokens.shape[1] == count and grid is None:
        return tokens
    grid = grid or (_side(count), _side(count))
    out = nn.functional.interpolate(_to_grid(tokens), grid, mode="bilinear", antialias=True)
    return _to_tokens(out)


def zscored(tokens: Tensor) -> Tensor:
    """(z - mean) / std over the tokens of each image, per channel. Singh et al. 2025.

    This removes what all tokens share (the image's global content) and keeps the spatial pattern.
    """
    std, mean = torch.std_mean(tokens, dim=1, keepdim=True, correction=0)
    return (tokens - mean) / (std + 1e-6)


def _side(count: int) -> int:
    if isqrt(count) ** 2 != count:
        raise ValueError(f"{count} tokens form no square; alignment needs square images")
    return isqrt(count)


def _to_grid(tokens: Tensor, grid: Grid | None = None) -> Tensor:
    side = None if grid else _side(tokens.shape[1])
    return tokens.transpose(1, 2).unflatten(2, grid or (side, side))


def grid_of(latents: Tensor, tokens: int) -> Grid:
    """Returns height and width in tokens of latents (..., h, w) cut into so many tokens."""
    height, width = latents.shape[-2:]
    patch = max(1, isqrt(height * width // tokens))
    return height // patch, width // patch


def _to_tokens(grid: Tensor) -> Tensor:
    return grid.flatten(2).transpose(1, 2)
