"""What transformers leaves in a model that it read hidden states of, and pickle cannot take."""

from copy import copy

from torch import nn
from transformers.utils import output_capturing

INSTALLED = "_output_capturing_hooks_installed"  # transformers' mark of a model with its hooks


def state_without_hooks(model: nn.Module) -> dict:
    """Returns a model's attributes for pickle, without transformers' hooks, which are functions of
    functions; it installs them again when it next reads hidden states.

    The model keeps its hooks; all tensors are shared.
    """
    hooked = any(_captures(hook) for m in model.modules() for hook in m._forward_hooks.values())
    return (_without_hooks(model, {}) if hooked else model).__dict__


def _without_hooks(module: nn.Module, known: dict[int, nn.Module]) -> nn.Module:
    """Returns a module that shares everything but its hooks; `known` keeps shared parts shared."""
    if id(module) in known:
        return known[id(module)]
    known[id(module)] = bare = object.__new__(type(module))
    bare.__dict__ = {name: value for name, value in vars(module).items() if name != INSTALLED}
    bare._forward_hooks = copy(module._forward_hooks)
    for key in [key for key, hook in bare._forward_hooks.items() if _captures(hook)]:
        del bare._forward_hooks[key]
    bare._modules = {
        name: None if child is None else _without_hooks(child, known)
        for name, child in module._modules.items()
    }
    return bare


def _captures(hook: object) -> bool:
    return getattr(hook, "__module__", None) == output_capturing.__name__
