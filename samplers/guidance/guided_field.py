"""A pair of predictions, and the velocity field that a rule makes of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from samplers.callables import check_velocity
from samplers.fields import (
    Velocity,
    fitting,
    grid_dependent,
    jumps_of,
    on_grid,
    time_shift_of,
)
from samplers.guidance.rule import Combine, Rule, read
from samplers.guidance.rules import as_rule
from samplers.states import Layout, of_parts


def per_prediction(_t: Tensor, reads: int) -> int:
    """Returns one network evaluation for each prediction that is read."""
    return reads


@dataclass(frozen=True)
class Pair:
    """Two predictions: both(x, t) -> (cond, uncond), and optionally cond(x, t) alone.

    cost(t, reads) returns the network evaluations per sample for the first `reads` predictions;
    `jumps` are times at which a prediction jumps.
    """

    both: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    cond: Velocity | None = None
    cost: Callable[[Tensor, int], int] = per_prediction
    jumps: tuple[float, ...] = ()
    for_grid: Callable[[Tensor], "Pair"] | None = None  # where a prediction depends on the grid


@dataclass(frozen=True)
class _Two:
    """Two velocities, evaluated one after the other; a class, so that fields pickle."""

    cond: Velocity
    uncond: Velocity

    def __call__(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return of_parts(torch.clone, self.cond(x, t)), self.uncond(x, t)  # of one buffer, perhaps

    def cost(self, t: Tensor, reads: int) -> int:
        both = (self.cond, self.uncond)[:reads]
        return sum(v.cost(t) if isinstance(v, Guided) else 1 for v in both)

    def for_grid(self, ts: Tensor) -> Pair:
        return pair(on_grid(self.cond, ts), on_grid(self.uncond, ts))


def pair(cond: Velocity, uncond: Velocity) -> Pair:
    """Returns a pair of two velocities, perhaps guided, evaluated one after the other."""
    check_velocity(cond)
    check_velocity(uncond)
    two = _Two(cond, uncond)
    jumps = (*jumps_of(cond), *jumps_of(uncond))
    dependent = grid_dependent(cond) or grid_dependent(uncond)
    return Pair(two, cond, two.cost, jumps, two.for_grid if dependent else None)


def batched_pair(both: Velocity, cond: Velocity | None = None) -> Pair:
    """Returns a pair evaluated in one call: `both` gets (2 B, ...), conditional rows first."""
    return Pair(_Halves(both), cond, jumps=jumps_of(both))


@dataclass(frozen=True)
class _Halves:
    """(x, t) -> (cond, uncond), the halves of one evaluation of twice the rows."""

    both: Velocity

    def __call__(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        twice = of_parts(lambda part: torch.cat((part, part)), x)
        k = self.both(twice, torch.cat((t, t)) if t.ndim else t)
        return tuple(of_parts(lambda part, half=half: part.chunk(2)[half], k) for half in (0, 1))


@dataclass
class Guided:
    """The velocity that a rule makes of a pair; `calls` counts network evaluations."""

    pair: Pair
    rule: Rule
    tally: list[int] = field(default_factory=lambda: [0], repr=False)  # shared by every grid's

    @property
    def calls(self) -> int:
        """Network evaluations so far."""
        return self.tally[0]

    def on_grid(self, ts: Tensor) -> "Guided":
        """Returns the field for a run on this grid; both count their evaluations together."""
        return _Running(self, ts) if self.grid_dependent else self

    @property
    def grid_dependent(self) -> bool:
        """Whether the rule or a prediction depends on the grid of the run."""
        return self.rule.for_grid is not None or self.pair.for_grid is not None

    @property
    def jumps(self) -> tuple[float, ...]:
        """Times at which the velocity jumps, in rising order."""
        return tuple(sorted({*self.pair.jumps, *self.rule.jumps}))

    @property
    def time_shift(self) -> float:
        """The conditional prediction's `time_shift`."""
        return time_shift_of(self.pair.cond or self.pair.both)

    @property
    def project(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """The conditional prediction's `project`, for two inpaintings; see `samplers.inpaint`."""
        return getattr(self.pair.cond or self.pair.both, "project", None)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        reads = self._reads(t)
        self.tally[0] += self.pair.cost(t, reads)
        if reads == 0:
            return of_parts(torch.zeros_like, x)
        if reads == 1:
            return self.pair.cond(x, t)
        cond, uncond = _two(self.pair.both(x, t))
        if isinstance(x, Tensor):
            shape, dtype = x.shape, x.dtype
            if isinstance(cond, Tensor) and cond.shape == shape and cond.dtype is dtype:
                if isinstance(uncond, Tensor) and uncond.shape == shape and uncond.dtype is dtype:
                    return self.rule(cond, uncond, t, x)
            return self.rule(fitting(cond, x), fitting(uncond, x), t, x)
        x, layout = Layout.of(x)  # whose parts a rule combines as one vector per sample
        return layout.unpack(self.rule(layout.pack(cond), layout.pack(uncond), t, x))

    def checked(self) -> "Guided":
        """Returns the same field with a check of each prediction and of their combination.

        It raises FloatingPointError naming the first that is not finite, with its time and sample.
        Each check waits for the device, so use it for debugging only.
        """
        return Guided(_looked_pair(self.pair), _looked_rule(self.rule))

    def cost(self, t: Tensor) -> int:
        """Returns a call's network evaluations per sample at t: with two networks, 0 to 2."""
        return self.pair.cost(t, self._reads(t))

    def _reads(self, t: Tensor) -> int:
        reads = self.rule.reads(t)
        return 2 if reads == 1 and self.pair.cond is None else reads


def _two(found: Any) -> tuple[Any, Any]:
    """Returns two predictions. Raises TypeError for anything else that a function returned."""
    stacked = isinstance(found, Tensor) and found.ndim > 1 and len(found) == 2
    if stacked or (isinstance(found, tuple | list) and len(found) == 2):
        return found[0], found[1]
    told = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
    told = f"{len(found)} values" if isinstance(found, tuple | list) else told
    raise TypeError(f"the guided function returned {told}; expected the two of (cond, uncond)")


def guide(
    predictions: Pair | tuple[Velocity, Velocity], rule: Combine | float | str | Tensor
) -> Guided:
    """Returns the velocity (x, t) -> v of a guided field, for any solver.

    `predictions` is a Pair, a tuple of two velocities (cond, uncond), or a function (x, t) that
    returns both. If the rule returns `cond` unchanged, the second prediction is not evaluated.
    The rule may be a weight, one weight per sample, a function, or a text such as "apg:3".
    Predictions of a narrower dtype are combined in the state's dtype. A state of several parts is
    combined as one vector per sample.
    """
    if isinstance(predictions, tuple):
        predictions = pair(*predictions)
    elif not isinstance(predictions, Pair):
        predictions = Pair(predictions)
    return Guided(predictions, as_rule(read(rule) if isinstance(rule, str) else rule))


class _Running(Guided):
    """A guided field during a run on a grid; it follows a rule that its source is given."""

    def __init__(self, source: Guided, ts: Tensor):
        pair = source.pair if source.pair.for_grid is None else source.pair.for_grid(ts)
        super().__init__(pair, source.rule.on_grid(ts), source.tally)
        self.source, self.ts, self.made_of = source, ts, source.rule

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        if self.source.rule is not self.made_of:
            self.made_of = self.source.rule
            self.rule = self.made_of.on_grid(self.ts)
        return super().__call__(x, t)


def _looked_pair(pair: Pair) -> Pair:
    one, again = pair.cond, pair.for_grid

    def both(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        cond, uncond = pair.both(_looked("the state", x, t), t)
        cond = _looked("the velocity with the prompt", cond, t)
        return cond, _looked("the velocity without the prompt", uncond, t)

    def cond(x: Tensor, t: Tensor) -> Tensor:
        return _looked("the velocity with the prompt", one(x, t), t)

    for_grid = None if again is None else lambda ts: _looked_pair(again(ts))
    return Pair(both, None if one is None else cond, pair.cost, pair.jumps, for_grid)


def _looked_rule(rule: Rule) -> Rule:
    def combine(cond: Tensor, uncond: Tensor, t: Tensor, x: Tensor) -> Tensor:
        return _looked("the guided velocity", rule(cond, uncond, t, x), t)

    for_grid = None if rule.for_grid is None else lambda ts: _looked_rule(rule.on_grid(ts))
    return Rule(combine, rule.reads, rule.jumps, for_grid, sees_state=True)


def _looked(name: str, v: Any, t: Tensor) -> Any:
    return of_parts(lambda part: _looked_part(name, part, t), v)


def _looked_part(name: str, v: Tensor, t: Tensor) -> Tensor:
    rows = v.isfinite().flatten(1).all(1) if v.ndim > 1 else v.isfinite()
    if not bool(rows.all()):
        sample = int((~rows).int().argmax())
        raise FloatingPointError(
            f"{name} is not finite at t = {float(t.min()):.6g}, first in sample {sample + 1} of "
            f"{len(v)}; lower the guidance or use float32"
        )
    return v
