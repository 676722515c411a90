"""Copies of the model that objectives may use: lagged, frozen, or trained on their own."""

import copy
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from janusflow.training.ema import move
from janusflow.training.objectives.network import Batch, Network

MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of AdamW


class Copy:
    """A copy of the model, made when it is first used, or set by `become`; `follow` updates it.

    Raises ValueError for sharded weights, which one process cannot copy.
    """

    def __init__(self, model: nn.Module, name: str):
        self._model, self._name, self._copy = model, name, None

    @property
    def model(self) -> nn.Module:
        if self._copy is None:
            if any(hasattr(p, "to_local") for p in self._model.parameters()):
                raise ValueError(
                    f"the {self._name} copy of the model needs complete weights on each device, "
                    "and these are sharded; train with DDP"
                )
            self._copy = copy.deepcopy(self._model).requires_grad_(False).eval()
        return self._copy

    @torch.no_grad()
    def velocity(self, net: Network, batch: Batch) -> Tensor:
        """Returns the copy's velocity (G, c, h, w) at the samples' x and t."""
        return net.velocity(batch.x, batch.t, model=self.model)

    def become(self, model: nn.Module) -> None:
        """Replaces the copy by another model with the same parameters."""
        self._copy = model.requires_grad_(False).eval()

    def follow(self, lag: float) -> None:
        """copy <- lag copy + (1 - lag) model, for the trainable parameters."""
        own, learns = dict(self.model.named_parameters()), self._learns()
        move([own[n] for n in learns], [p.detach() for p in learns.values()], lag)

    def _learns(self) -> dict[str, nn.Parameter]:
        """Returns the parameters of the model in training that are trained, by name."""
        return {n: p for n, p in self._model.named_parameters() if p.requires_grad}

    def state(self) -> dict[str, Tensor]:
        """Returns the weights that may differ from the files', by name."""
        own = dict(self.model.named_parameters())
        return {f"{self._name}.{n}": own[n] for n in self._learns()}

    @torch.no_grad()
    def load(self, found: Mapping[str, Tensor]) -> None:
        for name, parameter in self.model.named_parameters():
            if (value := found.get(f"{self._name}.{name}")) is not None:
                parameter.copy_(value)


class Learner(Copy):
    """A copy that is trained beside the model, by AdamW with its own learning rate."""

    def __init__(self, model: nn.Module, name: str, lr: float):
        super().__init__(model, name)
        self._lr, self._optimizer = lr, None

    @property
    def model(self) -> nn.Module:
        made = super().model
        if self._optimizer is None:
            own = dict(made.named_parameters())
            self._learning = {n: own[n].requires_grad_(True) for n in self._learns()}
            self._optimizer = torch.optim.AdamW(
                self._learning.values(), lr=self._lr, betas=(0.9, 0.99), weight_decay=0.0
            )
        return made

    def become(self, model: nn.Module) -> None:
        """Starts the copy from this model, which is not changed."""
        super().become(copy.deepcopy(model))
        self._optimizer = None

    def step(self) -> None:
        """Applies one update from the current gradients, averaged over all processes."""
        for parameter in self._learning.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if dist.is_available() and dist.is_initialized():
                dist.all_reduce(parameter.grad)
                parameter.grad /= dist.get_world_size()
        nn.utils.clip_grad_norm_(self._learning.values(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        found = super().state()
        for name, parameter in self._learning.items():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                found[f"{self._name}.{key}.{name}"] = value
        return found

    @torch.no_grad()
    def load(self, found: Mapping[str, Tensor]) -> None:
        super().load(found)
        for name, parameter in self._learning.items():
            kept = {k: found.get(f"{self._name}.{k}.{name}") for k in MOMENTS}
            if all(value is not None for value in kept.values()):
                self._optimizer.state[parameter] = {
                    k: v.clone() if k == "step" else v.to(parameter.device, copy=True)
                    for k, v in kept.items()
                }
