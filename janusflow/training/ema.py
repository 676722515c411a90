"""All that training changes, which is exactly what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from janusflow.training.config_stages import PARTS


@dataclass
class State:
    """`names[i]` is the parameter that `optimizer` counts as its i-th; `ema` holds the averages of
    the trained weights by the same names.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    names: list[str]
    ema: dict[str, Tensor]
    step: int = 0

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The trainable parameters by name."""
        return dict(trained(self.module))


def trained(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and parameters that learn. A name is "model." and the published one, or "projector."
    and so on, however the module is wrapped.
    """
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            yield plain(name), parameter


def plain(name: str) -> str:
    return (
        name.removeprefix("module.")
        .replace("aligner.projector.", "projector.")
        .replace(WRAPPED, "")
    )


WRAPPED = "_checkpoint_wrapped_module."  # what FSDP's activation checkpointing puts into names


def freeze_all_but(model: nn.Module, parts: tuple[str, ...]) -> None:
    """Lets the parts of the model learn and nothing else.

    The vision encoder's pooling head is in the checkpoint but not in the forward pass, so it never
    learns.
    """
    prefixes = tuple(prefix for part in parts for prefix in PARTS[part])
    for name, parameter in model.named_parameters():
        unused = ".attn_pool." in name
        parameter.requires_grad_(name.startswith(prefixes) and not unused)


def average(state: State, decay: float) -> None:
    """Moves the averages of a state; sharded tensors are averaged where they lie."""
    values = [_local(p) for p in state.parameters.values()]
    move([_local(x) for x in state.ema.values()], values, decay, state.step)


@torch.no_grad()
def move(
    averages: Sequence[Tensor], values: Sequence[Tensor], decay: float, step: int | None = None
) -> None:
    """ema <- d ema + (1 - d) value, in place. d is `decay`, warmed up as n / (n + 9) where a step
    n, counted from 1, is given, so that the first weights are soon forgotten.
    """
    decay = decay if step is None else min(decay, step / (step + 9))
    torch._foreach_lerp_(list(averages), list(values), 1 - decay)


def move_module(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """The same for what learns of a whole model and its average."""
    pairs = zip(average.parameters(), model.parameters(), strict=True)
    ours, theirs = zip(*((a, p.detach()) for a, p in pairs if p.requires_grad), strict=True)
    move(ours, theirs, decay, step)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor.detach()


def fill_gradients(state: State) -> None:
    """A parameter that no sample of the step needed has the gradient 0, not none: then a step is
    the same however its samples are divided among processes.
    """
    for parameter in state.parameters.values():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def tensors(state: State) -> dict[str, Tensor]:
    """Every tensor of the state under one name; sharded ones stay sharded."""
    found = {name: p.detach() for name, p in state.parameters.items()}
    found |= {f"ema.{name}": value for name, value in state.ema.items()}
    saved = state.optimizer.state_dict()
    for index, moments in saved["state"].items():
        for key, value in moments.items():
            found |= _named(f"{state.names[index]}.{key}", value)
    for index, group in enumerate(saved["param_groups"]):
        for key, value in group.items():
            if _is_number(value) and key not in GIVEN:
                found |= _named(f"{index}.{key}", value, "group")
    return found


GIVEN = {  # numbers of an optimizer's groups that the settings decide, not the steps taken
    "lr", "weight_decay", "rate", "decays", "initial_lr", "eps", "amsgrad", "maximize", "foreach",
    "capturable", "differentiable", "fused", "decoupled_weight_decay", "momentum", "nesterov",
    "ns_steps",
}  # fmt: skip


def _is_number(value) -> bool:
    return isinstance(value, int | float)


def _named(name: str, value, start: str = "optimizer") -> dict[str, Tensor]:
    """A number of an optimizer stands in a checkpoint as a tensor, under a name that says so."""
    if isinstance(value, Tensor):
        return {f"{start}.{name}": value}
    if _is_number(value):
        kind = torch.float64 if isinstance(value, float) else torch.int64
        return {f"{start}-number.{name}": torch.tensor(value, dtype=kind)}
    if value is None:
        return {}
    raise ValueError(f"the optimizer keeps a {type(value).__name__} {name!r}; choose another")


@torch.no_grad()
def load(state: State, found: dict[str, Tensor], step: int) -> None:
    """Takes over whole tensors, as `tensors` names them, sharding them where the state is sharded.

    ValueError for what is missing or has another shape.
    """
    load_weights(state, found)
    load_moments(state, found)
    state.step = step


@torch.no_grad()
def load_moments(state: State, found: Mapping[str, Tensor]) -> None:
    """What the optimizer keeps, of tensors that are whole or sharded already."""
    moments: dict[int, dict] = {}
    places, parameters = {name: i for i, name in enumerate(state.names)}, state.parameters
    saved = state.optimizer.state_dict()
    for key, value in found.items():
        start, _, rest = key.partition(".")
        name, _, moment = rest.rpartition(".")
        if start == "group-number":
            saved["param_groups"][int(name)][moment] = value.item()
        if start not in ("optimizer", "optimizer-number"):
            continue
        if name not in places:
            raise ValueError(f"the checkpoint trained {name!r}, this run does not")
        if start == "optimizer-number":
            value = value.item()
        else:
            value = _as(value, parameters[name] if value.shape == parameters[name].shape else None)
        moments.setdefault(places[name], {})[moment] = value
    state.optimizer.load_state_dict({**saved, "state": moments})


@torch.no_grad()
def load_weights(state: State, found: dict[str, Tensor]) -> None:
    """Loads weights and averages, and no optimizer."""
    for name, parameter in state.parameters.items():
        for own, target in ((name, parameter), (f"ema.{name}", state.ema[name])):
            own = own if own in found else own.replace("ema.model.", "ema.")  # as once written
            if own not in found or found[own].shape != target.shape:
                if own.startswith("ema.") and name in found:
                    own = name  # what is not averaged in the file begins at its value
                else:
                    raise ValueError(
                        f"the checkpoint has no {own!r} of shape {tuple(target.shape)}"
                    )
            _local(target).copy_(_local(_as(found[own], target)))


def averages(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors with the averages in place of the weights."""
    start = "ema."
    return {**found, **{n.removeprefix(start): x for n, x in found.items() if n.startswith(start)}}


def _as(tensor: Tensor, like: Tensor | None) -> Tensor:
    """On the device of `like`, and sharded as it is."""
    if like is None or hasattr(tensor, "device_mesh"):
        return tensor
    tensor = tensor.to(like.device)
    if not hasattr(like, "device_mesh"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
