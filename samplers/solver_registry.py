"""Solvers: what a solver is, and how it is registered and found.

A solver is a generator over a time grid that declares its order and cost; the tests check both.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from samplers.fields import Velocity as Velocity
from samplers.grids import Grid
from samplers.registry import Registry
from samplers.seeds import takes_seed

Path = Iterator[Tensor]


@dataclass(frozen=True, kw_only=True)
class Solver:
    """A generator path(v, x, ts) that yields the states at ts[1:], with its declared properties."""

    name: str
    path: Callable[..., Path]
    order: int | None  # of the endpoint's error in the step size; None where none is promised
    calls: int  # of v, per step
    extra: int | Callable[[int], int] = 0  # calls of the start-up, given the number of steps
    adaptive: bool = False  # chooses its own steps between the times of the grid
    stochastic: bool = False
    maps: bool = False  # integrates flow maps u(x, t, s) instead of velocities
    time_gradient: bool = False  # carries gradients to the times of its grid
    grid: str | Grid = "uniform"  # in GRIDS, or a function of the number of steps
    shifts: bool = False  # its own grid follows the field's `time_shift` and `jumps`
    doc: str = ""

    @property
    def fixed(self) -> bool:
        """Whether it integrates velocities on the steps of its grid, without noise."""
        return not (self.adaptive or self.stochastic or self.maps)

    def cost(self, steps: int) -> int:
        """Returns the evaluations of v on a grid of so many steps."""
        if self.adaptive:
            raise ValueError(
                f"{self.name} chooses its number of evaluations while it runs; wrap v in count() "
                "to see it"
            )
        extra = self.extra(steps) if callable(self.extra) else self.extra
        return self.calls * steps + extra

    def steps(self, calls: int) -> int:
        """Returns the steps that take exactly so many evaluations of v."""
        if self.adaptive:
            raise ValueError(f"{self.name} chooses its own steps; give it times, such as [0, 1]")
        below, n = None, 1
        while self.cost(n) < calls:
            below, n = self.cost(n), n + 1
        if self.cost(n) != calls:
            works = " or ".join(str(c) for c in (below, self.cost(n)) if c is not None)
            raise ValueError(f"{self.name} cannot use {calls} evaluations; give it {works}")
        return n

    def with_options(self, **options: Any) -> Solver:
        """Returns the same solver with some of its options set."""
        if not options:
            return self
        known = [
            name
            for name, p in inspect.signature(self.path).parameters.items()
            if p.default is not inspect.Parameter.empty
        ]
        for name in options:
            if name not in known:
                choice = f"choose from {', '.join(known)}" if known else "it takes no options"
                raise TypeError(f"{self.name} has no option {name!r}; {choice}")
        return replace(self, path=partial(self.path, **options))

    @property
    def linear(self) -> Solver:
        """The same solver, linear in the velocities: itself unless its option `lean` is on."""
        option = inspect.signature(self.path).parameters.get("lean")
        return self.with_options(lean=False) if option and option.default else self

    def __reduce_ex__(self, protocol: int) -> tuple:
        """Pickles a registered solver by its name, options and changes, without its closures."""
        known, options = SOLVERS.get(self.name), {}
        if type(self) is not Solver or known is None:
            return super().__reduce_ex__(protocol)
        changes = {k: own for k, own in vars(self).items() if own != getattr(known, k)}
        if getattr(self.path, "func", None) is known.path:
            options = changes.pop("path").keywords
        return _changed, (self.name, options, changes)


def _changed(name: str, options: dict, changes: dict) -> Solver:
    return replace(find(name, **options), **changes)


SOLVERS: Registry[Solver] = Registry(
    "solver", {"dopri5_each": "dopri5_per_sample", "bosh3_each": "bosh3_per_sample"}
)


def solver(
    *, order: int | None, calls: int = 1, **promises: Any
) -> Callable[[Callable[..., Path]], Callable[..., Path]]:
    """A decorator: registers a solver by its function's name, with fields of `Solver`.

    One that takes `generator` takes `seed` too, see `samplers.seeds`.
    """

    def register(path: Callable[..., Path]) -> Callable[..., Path]:
        name, doc = path.__name__, inspect.getdoc(path) or ""
        own = takes_seed(path)
        SOLVERS[name] = Solver(name=name, path=own, order=order, calls=calls, doc=doc, **promises)
        return path

    return register


def find(solver: str | Solver, **options: Any) -> Solver:
    """Returns the solver of that name (or the given one) with its options set."""
    if isinstance(solver, str):
        if solver not in SOLVERS:
            raise ValueError(SOLVERS.unknown(solver))
        solver = SOLVERS[solver]
    if not isinstance(solver, Solver):
        shown = " ".join(f"{solver!r:.80}".split())
        raise TypeError(
            f"the sampler is {shown}; expected a name such as 'heun', or a samplers.Solver"
        )
    return solver.with_options(**options)


def steps(ts: Tensor) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Yields (t, s, s - t) for each step: two times for v, and a number to multiply tensors with.

    If the times require gradients, s - t is a tensor that does too.
    """
    if ts.requires_grad:
        yield from ((t, s, s - t) for t, s in pairwise(ts.unbind()))
        return
    for (t, s), (a, b) in zip(pairwise(ts.unbind()), pairwise(ts.tolist()), strict=True):
        yield t, s, b - a


def advance(x: Tensor, *terms: tuple[float | Tensor, Tensor]) -> Tensor:
    """x + sum of w k over the terms (w, k), as a new tensor with a pass over memory per term."""
    (w, k), *rest = terms
    if isinstance(w, Tensor):
        return sum((w.to(x.dtype) * k for w, k in terms), x)
    x = torch.add(x, k, alpha=w)
    for w, k in rest:
        x.add_(k, alpha=w)
    return x
