"""First-block cache: where the first block's output changes little, the other blocks are skipped.

This is the cache of ParaAttention and diffusers (after TeaCache, Liu et al. 2024, 2411.19108),
applied per row, so that an image does not depend on the others in its batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from janusflow.models.janusflow.generation_adapters import Times
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.prompt_cache import PromptCache
from janusflow.utils.cpu.onednn_linear import repeating
from janusflow.utils.typed import is_number


class Reuse:
    """The cache of one sampling run; `of(prompt)` gives the velocity for each prompt in it.

    A row is skipped if its first block's residual r is close to that of its last full evaluation,
    mean |r - r_last| / mean |r_last| < `tolerance`; it then adds what the other blocks added at
    that evaluation. A tolerance of 0 skips nothing. Raises ValueError unless it is finite and not
    negative.
    """

    def __init__(self, model: JanusFlowModel, tolerance: float):
        if not is_number(tolerance) or not 0 <= tolerance < math.inf:
            raise ValueError(
                f"first_block_cache is {tolerance!r:.60}; expected a tolerance from 0, such as "
                "0.1, or None for off"
            )
        self.model, self.tolerance = model, tolerance
        self._rows: list[_Rows] = []

    def of(self, prompt: PromptCache) -> _Rows:
        """Returns velocity(latents, t) for this prompt, with a cache of its own per row."""
        self._rows.append(_Rows(self.model, prompt, self.tolerance))
        return self._rows[-1]

    def skipped(self, images: int) -> list[int]:
        """Returns how many evaluations each image skipped; with guidance it has several rows."""
        counts = [rows.skipped.view(-1, images).sum(0) for rows in self._rows]
        return torch.stack(counts).sum(0).tolist()


class _Rows:
    def __init__(self, model: JanusFlowModel, prompt: PromptCache, tolerance: float):
        self.model, self.prompt, self.tolerance = model, prompt, tolerance
        self.blocks = model.language_model.model.layers[
            : model.config.language_config.num_hidden_layers
        ]
        self.skipped = torch.zeros(len(prompt), dtype=torch.long)
        self.first: Tensor | None = None  # (B, q, D): what the first block added
        self.rest: Tensor | None = None  # and the others, at the last full evaluation

    @torch.no_grad()
    @repeating()
    def __call__(self, latents: Tensor, t: Tensor | Times) -> Tensor:
        model = self.model
        model.check_latents(latents, t, self.prompt)
        features, times, x = model.enter(latents.to(model.dtype), t)
        grid = tuple(features.shape[2:])
        y = model.through(self.blocks[:1], self.prompt, x, grid)
        hidden = self._others(y, y - x, grid)
        v = model.leave(model.language_model.model.norm(hidden), features, times)
        return v.to(latents.dtype)

    def _others(self, y: Tensor, first: Tensor, grid: tuple[int, int]) -> Tensor:
        """Applies all later blocks to the rows that need it: (B, q, D) -> the same."""
        needed = self._needed(first)
        self.skipped += ~needed
        if bool(needed.all()):
            out = self.model.through(self.blocks[1:], self.prompt, y, grid)
            self.first, self.rest = first, out - y
            return out
        rows = needed.nonzero()[:, 0].to(y.device)
        if len(rows):
            out = self.model.through(self.blocks[1:], self.prompt[rows], y[rows], grid)
            self.first[rows], self.rest[rows] = first[rows], out - y[rows]
        return y + self.rest

    def _needed(self, first: Tensor) -> Tensor:
        """Returns (B,) on the CPU: whether the change is not below the tolerance, or is NaN."""
        if self.first is None:
            return torch.ones(len(first), dtype=torch.bool)
        change = (first - self.first).abs().float().mean((1, 2))
        return ~(change < self.tolerance * self.first.abs().float().mean((1, 2))).cpu()
