"""States of several tensors: tuples, dictionaries and other pytrees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_unflatten

from samplers.fields import Velocity, Wrapped, fitting, flat


def one_tensor(value: Any, name: str) -> Tensor:
    """Returns the value. Raises TypeError if it is not a single tensor (B, ...)."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} is {type(value).__name__}; pass one tensor (B, ...), because only sample and "
            "trajectory take tuples and dicts"
        )
    return value


def of_parts(function: Callable[[Tensor], Tensor], state: Any) -> Any:
    """Returns function(state), or for a state of several parts the same of each of them."""
    return function(state) if isinstance(state, Tensor) else tree_map(function, state)


@dataclass(frozen=True)
class Layout:
    """How the parts of a state are concatenated to one tensor (B, D)."""

    spec: TreeSpec
    shapes: tuple[tuple[int, ...], ...]  # of the parts, without the batch
    dtypes: tuple[torch.dtype, ...]

    @classmethod
    def of(cls, state: Any) -> tuple[Tensor, Layout]:
        """Returns the state as one tensor, and the layout that separates it again."""
        parts, spec = tree_flatten(state)
        if not parts or not all(isinstance(part, Tensor) and part.ndim for part in parts):
            kinds = ", ".join(sorted({type(part).__name__ for part in parts})) or "nothing"
            raise TypeError(
                f"the state holds {kinds}; expected a tensor (B, ...), or a tuple or dict of "
                "tensors"
            )
        if len({(len(part), part.device) for part in parts}) > 1:
            told = ", ".join(f"{tuple(part.shape)} on {part.device}" for part in parts)
            raise ValueError(
                f"the parts of the state are {told}; expected the same batch size and device"
            )
        for part in parts:
            if not part.dtype.is_floating_point:
                raise TypeError(f"a part of the state is {part.dtype}; pass floating-point parts")
        wide = [torch.promote_types(part.dtype, torch.float32) for part in parts]
        layout = cls(spec, tuple(part.shape[1:] for part in parts), tuple(wide))
        return layout.pack(state), layout

    def pack(self, state: Any) -> Tensor:
        """Concatenates the parts of such a state to (B, D), in the widest of their dtypes."""
        parts = self.parts(state)
        widest = max(self.dtypes, key=lambda dtype: dtype.itemsize)
        return torch.cat([flat(part).to(widest) for part in parts], 1)

    def parts(self, state: Any) -> list[Tensor]:
        """Returns the parts of such a state in order. Raises TypeError for another structure."""
        parts, spec = tree_flatten(state)
        if spec == self.spec:
            return parts
        like = tree_unflatten(list(range(len(self.shapes))), self.spec)
        if (found := _in_order(state, like)) is None:
            raise TypeError(
                f"v returned {_told(state)} where the state is {_told(like)}; return the structure "
                "of the state"
            )
        return found

    def unpack(self, x: Tensor) -> Any:
        """Returns the state whose parts are concatenated in x (B, D)."""
        parts = x.split([prod(shape) for shape in self.shapes], 1)
        shaped = [
            part.reshape(len(x), *shape).to(dtype)
            for part, shape, dtype in zip(parts, self.shapes, self.dtypes, strict=True)
        ]
        return tree_unflatten(shaped, self.spec)

    def field(self, v: Velocity) -> Velocity:
        """Returns the velocity of the packed state; times per sample are passed to v as (B, 1)."""
        return _Packed(v, self)


class _Packed(Wrapped):
    def __init__(self, v: Velocity, layout: Layout):
        super().__init__(v)
        self.layout = layout

    @property
    def project(self):
        inner = getattr(self.v, "project", None)
        if inner is None:
            return None
        return lambda x, t: self.layout.pack(inner(self.layout.unpack(x), t))

    def __call__(self, x: Tensor, *times: Tensor) -> Tensor:
        state = self.layout.unpack(x)
        k = self.v(state, *times)
        for part, like in zip(self.layout.parts(k), tree_flatten(state)[0], strict=True):
            fitting(part, like)
        return self.layout.pack(k)


def _in_order(state: Any, like: Any) -> list | None:
    """Returns the parts of a state in the order of a like one, or None if they differ.

    The order of keys, and tuple or list, make no difference.
    """
    if isinstance(like, Mapping):
        same = isinstance(state, Mapping) and state.keys() == like.keys()
        pairs = [(state[key], like[key]) for key in like] if same else None
    elif isinstance(like, tuple | list):
        same = isinstance(state, tuple | list) and len(state) == len(like)
        pairs = list(zip(state, like, strict=True)) if same else None
    else:
        return [state]
    found = [] if pairs is None else [_in_order(*pair) for pair in pairs]
    return None if pairs is None or None in found else [part for own in found for part in own]


def _told(state: Any) -> str:
    """Returns words for the structure of a state."""
    if isinstance(state, Mapping):
        return f"a {type(state).__name__} with {', '.join(map(repr, state))}"
    if isinstance(state, tuple | list):
        return f"a {type(state).__name__} of {len(state)}"
    return "a tensor" if isinstance(state, Tensor | int) else f"of type {type(state).__name__}"
