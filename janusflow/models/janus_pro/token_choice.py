"""The choice of an image's next token from guided logits, with a random generator per row."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from janusflow.utils.limits import whole
from janusflow.utils.typed import is_number

Seeds = torch.Generator | Sequence[torch.Generator] | None
COLDEST = 1e-6  # a lower temperature takes the most likely token; its logits would overflow


@dataclass(frozen=True, kw_only=True)
class TokenChoice:
    """How a token is drawn; temperature 0 takes the most likely one."""

    temperature: float = 1.0
    top_k: int | None = None  # of the likeliest, None for all
    top_p: float | None = None  # share of the probability that is kept, None for all

    def __post_init__(self):
        if not is_number(self.temperature) or not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature!r}; expected 0 or more, 1 is usual")
        whole(self.top_k, "top_k", optional=True)
        if self.top_p is not None and not (is_number(self.top_p) and 0 < self.top_p <= 1):
            raise ValueError(f"top_p is {self.top_p!r}; expected a share above 0 and at most 1")

    def function(self, seeds: Seeds) -> Callable[[Tensor], Tensor]:
        """Returns a function from logits (B, codes) to tokens (B,).

        A row's token is argmax(p / e) with e exponential from that row's generator, as
        `torch.multinomial` does. So one image is identical to transformers' with that seed, and
        another batch, whose rounding differs by 1e-7, almost never changes a token.
        """
        if self.temperature < COLDEST:
            return lambda logits: logits.argmax(dim=-1)
        warp = LogitsProcessorList()
        if self.temperature != 1:
            warp.append(TemperatureLogitsWarper(float(self.temperature)))
        if self.top_k is not None:
            warp.append(TopKLogitsWarper(self.top_k))
        if self.top_p is not None and self.top_p < 1:
            warp.append(TopPLogitsWarper(self.top_p))

        def draw(logits: Tensor) -> Tensor:
            p = torch.softmax(warp(None, logits.float()), dim=-1)
            return (p / _exponential(p, seeds)).argmax(dim=-1)

        return draw


def _exponential(like: Tensor, seeds: Seeds) -> Tensor:
    """Returns exponential random numbers like `like`, drawn on the generators' device."""
    if seeds is None:
        return torch.empty_like(like).exponential_()
    if isinstance(seeds, torch.Generator):
        seeds = [seeds] * len(like)
    rows = [
        torch.empty(like.shape[1], device=seed.device).exponential_(generator=seed)
        for seed in seeds
    ]
    return torch.stack(rows).to(like.device)
