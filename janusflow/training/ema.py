"""The state of a training: trained weights, their moving averages and the optimizer's moments.

This is exactly what a checkpoint holds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from janusflow.training.config_stages import PARTS


@dataclass
class State:
    """The state of a training.

    `names[i]` is the name of the optimizer's i-th parameter; `ema` holds the moving averages of the
    trained weights under the same names.
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
    """Returns names and parameters that are trained.

    A name starts with "model.", "projector." and so on and does not depend on how the module is
    wrapped.
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
    """Makes these parts of the model trainable and freezes the rest.

    The vision encoder's pooling head is in the checkpoint but not used in the forward pass, so it
    stays frozen.
    """
    prefixes = tuple(prefix for part in parts for prefix in PARTS[part])
    for name, parameter in model.named_parameters():
        unused = ".attn_pool." in name
        parameter.requires_grad_(name.startswith(prefixes) and not unused)


def average(state: State, decay: float) -> None:
    """Updates the moving averages of a state; sharded tensors are averaged in place."""
    values = [_local(p) for p in state.parameters.values()]
    move([_local(x) for x in state.ema.values()], values, decay, state.step)


@torch.no_grad()
def move(
    averages: Sequence[Tensor], values: Sequence[Tensor], decay: float, step: int | None = None
) -> None:
    """ema <- d ema + (1 - d) value, in place.

    d is `decay`, warmed up as n / (n + 9) at step n (counted from 1) if given, so that the initial
    weights are soon forgotten.
    """
    decay = decay if step is None else min(decay, step / (step + 9))
    torch._foreach_lerp_(list(averages), list(values), 1 - decay)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor.detach()


def fill_gradients(state: State) -> None:
    """Sets the missing gradients of parameters that no sample of the step used to 0.

    A step then does not depend on how its samples are divided among processes.
    """
    for parameter in state.parameters.values():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def tensors(state: State) -> dict[str, Tensor]:
    """Returns every tensor of the state by name; sharded ones stay sharded."""
    found = {name: p.detach() for name, p in state.parameters.items()}
    found |= {f"ema.{name}": value for name, value in state.ema.items()}
    saved = state.optimizer.state_dict()
    for index, moments in saved["state"].items():
        for key, value in moments.items():
            found |= _named(f"{state.names[index]}.{key}", value)
    for index, group in enumerate(saved["param_groups"]):
        for key, value in group.items():
            if isinstance(value, int | float) and key not in GIVEN:
                found |= _named(f"{index}.{key}", value, "group")
    return found


GIVEN = {  # numbers of an optimizer's groups that the settings decide, not the steps taken
    "lr", "weight_decay", "rate", "decays", "initial_lr", "eps", "amsgrad", "maximize", "foreach",
    "capturable", "differentiable", "fused", "decoupled_weight_decay", "momentum", "nesterov",
    "ns_steps",
}  # fmt: skip


def _named(name: str, value, start: str = "optimizer") -> dict[str, Tensor]:
    """Stores a number of the optimizer as a tensor, under a name that marks it."""
    if isinstance(value, Tensor):
        return {f"{start}.{name}": value}
    if isinstance(value, int | float):
        kind = torch.float64 if isinstance(value, float) else torch.int64
        return {f"{start}-number.{name}": torch.tensor(value, dtype=kind)}
    if value is None:
        return {}
    raise ValueError(f"the optimizer keeps a {type(value).__name__} {name!r}; choose another")


@torch.no_grad()
def load(state: State, found: dict[str, Tensor], step: int) -> None:
    """Copies whole tensors, named as by `tensors`, into the state, sharding them where the state is
    sharded.

    Raises ValueError for a missing tensor or another shape.
    """
    load_weights(state, found)
    load_moments(state, found)
    state.step = step


@torch.no_grad()
def load_moments(state: State, found: Mapping[str, Tensor]) -> None:
    """Restores the optimizer's moments from tensors that are whole or sharded already."""
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
            raise ValueError(
                f"the checkpoint trained {name!r}, and this run does not; resume with the same "
                "training.trainable"
            )
        if start == "optimizer-number":
            value = value.item()
        else:
            value = _as(value, parameters[name] if value.shape == parameters[name].shape else None)
        moments.setdefault(places[name], {})[moment] = value
    state.optimizer.load_state_dict({**saved, "state": moments})


@torch.no_grad()
def load_weights(state: State, found: dict[str, Tensor]) -> None:
    """Restores weights and averages, but no optimizer."""
    for name, parameter in state.parameters.items():
        for own, target in ((name, parameter), (f"ema.{name}", state.ema[name])):
            own = own if own in found else own.replace("ema.model.", "ema.")  # as once written
            if own not in found or found[own].shape != target.shape:
                if own.startswith("ema.") and name in found:
                    own = name  # what is not averaged in the file begins at its value
                else:
                    raise ValueError(
                        f"the checkpoint has no {own!r} of shape {tuple(target.shape)}; resume "
                        "with the model that it was trained from"
                    )
            _local(target).copy_(_local(_as(found[own], target)))


def load_heads(state: State, found: Mapping[str, Tensor]) -> None:
    """Copies the averages of parameters outside the model, such as alignment's head, where a
    checkpoint has them in the same shape.
    """
    for name, parameter in state.parameters.items():
        value = found.get(f"ema.{name}")
        if name.startswith("model.") or value is None or value.shape != parameter.shape:
            continue
        for target in (parameter, state.ema[name]):
            _local(target).copy_(_local(_as(value, target)))


def averages(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a checkpoint's tensors with the averages in place of the weights."""
    start = "ema."
    return {**found, **{n.removeprefix(start): x for n, x in found.items() if n.startswith(start)}}


def _as(tensor: Tensor, like: Tensor | None) -> Tensor:
    """Returns the tensor on the device of `like`, sharded in the same way."""
    if like is None or hasattr(tensor, "device_mesh"):
        return tensor
    tensor = tensor.to(like.device)
    if not hasattr(like, "device_mesh"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
