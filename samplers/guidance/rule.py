"""Guidance rules: their definition, their registration, and parsing from text."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, ParamSpec, overload

import torch
from torch import Tensor

from samplers.fields import flat, per_sample
from samplers.registry import Registry

P = ParamSpec("P")
Combine = Callable[..., Tensor]  # (cond, uncond, t), and the state x if the rule sees it
Weight = float | Tensor | Callable[[Tensor], float | Tensor]

LARGEST = 3e38  # weight
OLD = {  # names of release 0.1, for one more release
    "within": "guidance_interval",
    "rescaled": "cfg_rescale",
    "zero_star": "cfg_zero_star",
    "projected": "apg",
}


RULES: Registry[Callable[..., Rule]] = Registry("guidance rule", OLD)


def both(_t: Tensor) -> int:
    return 2


@dataclass(frozen=True, repr=False)
class Rule:
    """A rule that combines two predictions, and how many of them it needs at time t.

    - reads(t) is 2 if both matter, 1 if the result is `cond` unchanged, 0 if it is zero.
    - `jumps` are times at which the velocity jumps: grids place a time there, and solvers restart
      with the limit from the other side.
    - `for_grid` returns the rule for a run on a grid, if it depends on the steps.
    - `written` records how it was made: name, arguments and keywords.
    - A rule that `sees_state` combines (cond, uncond, t, x), for rules about predictions of data or
      noise.
    """

    combine: Combine
    reads: Callable[[Tensor], int] = both
    jumps: tuple[float, ...] = ()
    for_grid: Callable[[Tensor], Rule] | None = None
    written: tuple[str, tuple, dict] | None = None
    sees_state: bool = False

    def __call__(self, cond: Tensor, uncond: Tensor, t: Tensor, x: Tensor | None = None) -> Tensor:
        if not self.sees_state:
            return self.combine(cond, uncond, t)
        if x is None:
            raise ValueError(f"{self!r} needs the state; call it with (cond, uncond, t, x)")
        return self.combine(cond, uncond, t, x)

    def on_grid(self, ts: Tensor) -> Rule:
        """Returns the rule for a run on this grid."""
        return self if self.for_grid is None else replace(self.for_grid(ts), written=self.written)

    def __repr__(self) -> str:
        if self.written is None:
            return f"Rule({getattr(self.combine, '__name__', self.combine)})"
        name, args, options = self.written
        told = [repr(a) for a in args] + [f"{k}={v!r}" for k, v in options.items()]
        return f"{name}({', '.join(told)})"

    def __reduce_ex__(self, protocol: int) -> tuple:
        """Pickles a registered rule by its name and arguments."""
        if self.written is None or self.written[0] not in RULES:
            return super().__reduce_ex__(protocol)
        return _remade, self.written


def _remade(name: str, args: tuple, options: dict) -> Rule:
    return RULES[name](*args, **options)


@overload
def rule(make: Callable[P, Combine]) -> Callable[P, Rule]: ...
@overload
def rule(*, name: str | None) -> Callable[[Callable[P, Combine]], Callable[P, Rule]]: ...
def rule(make: Callable | None = None, *, name: str | None = None):
    """A decorator: registers in RULES a function from a weight (and options) to a rule."""
    if make is None:
        return lambda make: rule(make, name=name)
    label = name or make.__name__

    @functools.wraps(make)
    def made(*args: Any, **options: Any) -> Rule:
        one = make(*args, **options)
        one = one if isinstance(one, Rule) else Rule(one)
        return replace(one, written=(label, args, options))

    RULES[label] = made
    return made


def parse(text: str) -> Rule:
    """Parses a rule as name:number,..., such as "cfg:2" or "guidance_interval:4,0.1,0.9"."""
    name, _, numbers = text.partition(":")
    if name not in RULES:
        raise ValueError(RULES.unknown(name))
    if not numbers.strip():
        raise ValueError(
            f"guidance {text!r:.80} names no weight; write NAME:NUMBER, for example {name}:2"
        )
    try:
        return RULES[name](*(float(number) for number in numbers.split(",")))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"guidance {text!r:.80} cannot be read ({error!s:.200}); write NAME:NUMBER,..., for "
            f"example {name}:2"
        ) from error


def read(text: str) -> Rule | float:
    """Parses a weight, such as "2", or a rule, such as "cfg:2"."""
    try:
        return float(text)
    except ValueError:
        return parse(text)


def number(weight: float | Tensor) -> float | Tensor:
    """Returns a finite float, or a finite tensor with one weight per sample."""
    if isinstance(weight, Tensor) and (weight.ndim > 0 or weight.requires_grad):
        if not weight.isfinite().all():
            raise ValueError("guidance weights hold NaN or infinity; give finite ones, 1 for none")
        return weight if weight.ndim else weight.reshape(1)  # which keeps its gradient
    if isinstance(weight, bool) or not isinstance(weight, Real | Tensor):
        raise TypeError(f"guidance weight {weight!r} is not a number; give one, 1 for no guidance")
    if not abs(weight) <= LARGEST:  # NaN included; beyond it float32 overflows
        raise ValueError(
            f"guidance weight {weight:g} is not finite in float32; 1 means no guidance"
        )
    return float(weight)


def schedule(weight: Weight) -> Callable[[Tensor], float | Tensor]:
    if callable(weight):
        return lambda t: number(weight(t))
    constant = number(weight)
    return lambda _: constant


def unless_one(w: Callable[[Tensor], float | Tensor]) -> Callable[[Tensor], int]:
    """Returns the `reads` of a rule of weight w(t): 1 where w is the number 1, else 2.

    The value of a tensor is not read, because a GPU would have to finish first.
    """

    def reads(t: Tensor) -> int:
        value = w(t)
        return 1 if isinstance(value, float) and value == 1 else 2

    return reads


def weight_at(w: Callable[[Tensor], float | Tensor], t: Tensor, like: Tensor) -> float | Tensor:
    value = w(t)
    if isinstance(value, float):
        return value
    if len(value) not in (1, len(like)):
        raise ValueError(f"{len(value)} guidance weights for {len(like)} samples; give one each")
    return per_sample(value.to(like), like)


def where(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    if mask.ndim == 0:
        return yes if mask else no
    return torch.where(mask, yes, no)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product per sample, (B, ...) twice -> (B, 1, ..., 1)."""
    return per_sample(flat(a * b).sum(1), a)


def deviation(x: Tensor) -> Tensor:
    """Standard deviation per sample, (B, ...) -> (B, 1, ..., 1)."""
    return per_sample(flat(x).std(1, correction=0), x)


def ratio(a: Tensor, b: Tensor, otherwise: float) -> Tensor:
    """a / b, or `otherwise` where b is 0, with a finite gradient there."""
    return torch.where(b == 0, otherwise, a / not_zero(b))


def not_zero(b: Tensor) -> Tensor:
    """b, or 1 where it is 0: what `torch.where` does not choose still passes NaN gradients on."""
    return torch.where(b == 0, 1.0, b)
