"""Sampled tokens of an answer drawn from a seed, without touching torch's global generators."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from samplers.seeds import seeded


def drawing(seed: int | None) -> AbstractContextManager:
    """A context in which row i of every `torch.multinomial` of this thread draws from seed + i.

    transformers' `generate` draws tokens so. Without a seed nothing changes.
    """
    return nullcontext() if seed is None else _Seeded(seed)


def check_seed(seed) -> None:
    """Raises TypeError or ValueError for what is no seed; None is none."""
    if seed is not None:
        seeded(seed)


class _Seeded(TorchFunctionMode):
    def __init__(self, seed: int):
        super().__init__()
        self.seed, self.rows = int(seed), []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.multinomial and kwargs.get("generator") is None:
            return self._draw(*args, **kwargs)
        return function(*args, **kwargs)

    def _draw(self, input: Tensor, num_samples: int, replacement=False, *, generator=None):  # noqa: ARG002
        """Returns `torch.multinomial` of probabilities (rows, n) or (n,), each row from its own
        generator.
        """
        probs = torch.atleast_2d(input)
        while len(self.rows) < len(probs):
            own = torch.Generator(probs.device).manual_seed((self.seed + len(self.rows)) % 2**63)
            self.rows.append(own)
        each = zip(probs.split(1), self.rows, strict=False)
        drawn = torch.cat(
            [row.multinomial(num_samples, replacement, generator=g) for row, g in each]
        )
        return drawn if input.ndim > 1 else drawn[0]
