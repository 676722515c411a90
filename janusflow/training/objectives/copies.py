"""Copies of the trained model that an objective may ask for: lagged behind it, or frozen."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from janusflow.training.ema import move


class Copy:
    """The model as it was when the copy was first used, or the one that it was told to `become`;
    `follow` lets it move after the model.

    ValueError for sharded weights, which one process cannot copy.
    """

    def __init__(self, model: nn.Module, name: str):
        self._model, self._name, self._copy = model, name, None

    @property
    def model(self) -> nn.Module:
        if self._copy is None:
            if any(hasattr(p, "to_local") for p in self._model.parameters()):
                raise ValueError(
                    f"the {self._name} copy of the model needs whole weights on each device, these "
                    "are sharded; train with DDP"
                )
            self._copy = copy.deepcopy(self._model).requires_grad_(False).eval()
        return self._copy

    def become(self, model: nn.Module) -> None:
        """Takes another model of the same parameters for the copy."""
        self._copy = model.requires_grad_(False).eval()

    def follow(self, lag: float) -> None:
        """copy <- lag copy + (1 - lag) model, where the model learns."""
        ours, theirs = zip(*self._pairs(), strict=True)
        move(ours, theirs, lag)

    def _pairs(self):
        own = dict(self.model.named_parameters())
        return [(own[n], p.detach()) for n, p in self._model.named_parameters() if p.requires_grad]

    def state(self) -> dict[str, Tensor]:
        """Its weights that may differ from the files', by name."""
        own = dict(self.model.named_parameters())
        learns = [n for n, p in self._model.named_parameters() if p.requires_grad]
        return {f"{self._name}.{n}": own[n] for n in learns}

    @torch.no_grad()
    def load(self, found: Mapping[str, Tensor]) -> None:
        for name, parameter in self.model.named_parameters():
            if (value := found.get(f"{self._name}.{name}")) is not None:
                parameter.copy_(value)
