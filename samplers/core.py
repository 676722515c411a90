"""Solvers: their definition, their registration, and how they are run.

A velocity is any callable v(x, t): x has any shape with the batch first, t is a 0-dim float64
tensor on the CPU; t = 0 is noise, t = 1 is data, and v = data - noise on the straight path. A
solver is a generator over a time grid that declares its order and cost; the tests check both.
"""

from __future__ import annotations

import inspect
import operator
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from samplers import compiled_run
from samplers.fields import Counted as Counted
from samplers.fields import Velocity as Velocity
from samplers.fields import (
    Watched,
    is_flow_map,
    jumps_of,
    on_grid,
    time_shift_of,
    unwatched,
)
from samplers.fields import count as count
from samplers.grids import GRIDS, NEAR, Grid, at_jumps, earlier, pieces
from samplers.registry import Registry
from samplers.states import Layout

Path = Iterator[Tensor]
Times = Tensor | Iterable[float] | int
FARTHEST = 1e3  # time of a grid
CLOSEST = 1e-12  # two times, relative to the largest


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
    shifts: bool = False  # its own grid follows the field's `time_shift`
    doc: str = ""

    @property
    def fixed(self) -> bool:
        """Whether it integrates velocities on the steps of its grid, without noise."""
        return not (self.adaptive or self.stochastic or self.maps)

    def cost(self, steps: int) -> int:
        """Returns the evaluations of v on a grid of so many steps."""
        if self.adaptive:
            raise ValueError(
                f"{self.name} counts its calls as it goes; wrap v in count() to see them"
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
            raise ValueError(f"{self.name} cannot spend {calls} calls; give it {works}")
        return n

    def with_options(self, **options: Any) -> Solver:
        """Returns the same solver with some of its options set."""
        known = [
            name
            for name, p in inspect.signature(self.path).parameters.items()
            if p.default is not inspect.Parameter.empty
        ]
        for name in options:
            if name not in known:
                choice = f"choose from {', '.join(known)}" if known else "it has none"
                raise TypeError(f"{self.name} has no option {name!r}; {choice}")
        return replace(self, path=partial(self.path, **options)) if options else self

    def __reduce__(self) -> tuple:
        """Pickles a registered solver by its name and options, so that it need hold no closure."""
        known, options = SOLVERS.get(self.name), getattr(self.path, "keywords", {})
        path = getattr(self.path, "func", self.path)
        if type(self) is Solver and known and replace(self, path=known.path) == known:
            if path is known.path:
                return _found, (self.name, options)
        return super().__reduce_ex__(2)


SOLVERS: Registry[Solver] = Registry(
    "solver", {"dopri5_each": "dopri5_per_sample", "bosh3_each": "bosh3_per_sample"}
)


def solver(
    *, order: int | None, calls: int = 1, **promises: Any
) -> Callable[[Callable[..., Path]], Callable[..., Path]]:
    """A decorator that registers a solver under its function's name; its arguments are fields of
    `Solver`.
    """

    def register(path: Callable[..., Path]) -> Callable[..., Path]:
        name, doc = path.__name__, inspect.getdoc(path) or ""
        SOLVERS[name] = Solver(name=name, path=path, order=order, calls=calls, doc=doc, **promises)
        return path

    return register


def find(solver: str | Solver, **options: Any) -> Solver:
    """Returns the solver of that name (or the given one) with its options set."""
    if isinstance(solver, str):
        if solver not in SOLVERS:
            raise ValueError(SOLVERS.unknown(solver))
        solver = SOLVERS[solver]
    if not isinstance(solver, Solver):
        raise TypeError(
            f"the sampler is {solver!r:.80}; expected a name such as 'heun', or a samplers.Solver"
        )
    return solver.with_options(**options)


def _found(name: str, options: dict[str, Any]) -> Solver:
    return find(name, **options)


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
    """x + sum of w k over the terms (w, k), as one new tensor with one pass over memory per
    term.
    """
    (w, k), *rest = terms
    if isinstance(w, Tensor):
        return sum((w.to(x.dtype) * k for w, k in terms), x)
    x = torch.add(x, k, alpha=w)
    for w, k in rest:
        x.add_(k, alpha=w)
    return x


def sample(
    v: Velocity,
    noise: Any,
    ts: Times,
    solver: str | Solver = "heun",
    *,
    nonfinite: Literal["raise", "return"] = "raise",
    **options: Any,
) -> Any:
    """Integrates dx/dt = v(x, t) from ts[0] to ts[-1] and returns the final state.

    It has the shape and dtype of `noise`, but at least float32. The state is a tensor (B, ...), or
    a tuple or dict of tensors, which v then gets and returns. An integer `ts` is a number of
    evaluations of v on the solver's own grid. Further options are the solver's. If v has an
    attribute `jumps`, times at which it jumps, that grid gets a time at each of them; any grid's
    solver restarts at jumps. Gradients are recorded unless disabled by torch.no_grad(), also for
    times that require them if the solver supports it.

    Raises FloatingPointError if a velocity was not finite, naming the first such time; with
    nonfinite="return" the state is returned anyway, as always under torch.compile and the
    transforms of torch.func, where values cannot be inspected.
    """
    if torch.compiler.is_compiling():
        return compiled_run.run(v, noise, solver, ts, options)
    path = trajectory(v, noise, ts, solver, nonfinite=nonfinite, **options)
    return deque(path, maxlen=1)[0][1]


def trajectory(
    v: Velocity,
    noise: Any,
    ts: Times,
    solver: str | Solver = "heun",
    *,
    nonfinite: Literal["raise", "return"] = "raise",
    **options: Any,
) -> Iterator[tuple[Tensor, Any]]:
    """Yields (t, state) at every time of the grid, starting with (ts[0], noise); see `sample`."""
    if nonfinite not in ("raise", "return"):
        raise ValueError(f'nonfinite is "raise" or "return", not {nonfinite!r}')
    chosen = find(solver, **options)
    if hasattr(ts, "chosen_for"):  # a pilot's grid brings the solver that it found best
        chosen = ts.chosen_for(chosen)
    if not isinstance(noise, Tensor):
        state, layout = Layout.of(noise)
        path = trajectory(layout.field(v), state, ts, chosen, nonfinite=nonfinite)
        return ((t, layout.unpack(x)) for t, x in path)
    if not noise.dtype.is_floating_point:
        raise TypeError(f"the state is {noise.dtype}; pass floating-point noise")
    if noise.dtype.itemsize < 4:
        noise = noise.float()
    if chosen.adaptive and vectorized():
        raise TypeError(
            f"{chosen.name} chooses its steps by looking at the state, which torch.vmap forbids; "
            "choose a solver with fixed steps"
        )
    if chosen.maps and not is_flow_map(v):
        raise TypeError(
            f"{chosen.name} takes a flow map u(x, t, s); wrap it with samplers.flow_map(u), or "
            "choose a solver of velocities"
        )
    grid = times(ts, chosen, jumps_of(v), time_shift_of(v))
    return _run(on_grid(v, grid), noise, grid, chosen, nonfinite == "raise")


def _run(
    v: Velocity, noise: Tensor, ts: Tensor, solver: Solver, check: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    yield ts[0], noise
    if not noise.numel():  # no sample, no call
        yield from ((t, noise) for t in ts[1:].unbind())
        return
    field = unwatched(v) if transformed() else Watched(v)
    project = getattr(v, "project", None)  # onto what the field keeps, as inpainting does
    for t, x in _pieces(field, noise, ts, solver, jumps_of(v)):
        yield t, x if project is None else project(x, t)
    if check and isinstance(field, Watched):
        field.check(noise)


def _pieces(
    v: Velocity, state: Tensor, ts: Tensor, solver: Solver, jumps: tuple[float, ...]
) -> Iterator[tuple[Tensor, Tensor]]:
    """(t, state) from ts[1] on; where the field jumps the solver begins anew."""
    parts = pieces(ts, jumps) if jumps and not solver.stochastic else [ts]
    for part in parts:
        field = v if len(parts) == 1 else partial(_inside, v, *sorted((part[0], part[-1])))
        path = solver.path(field, state, part)
        for t, state in zip(part[1:].unbind(), path, strict=True):
            yield t, state


def transformed() -> bool:
    """Returns whether torch.compile or a transform of torch.func (vmap, grad, jvp) is active."""
    if torch.compiler.is_compiling():
        return True
    return torch._C._functorch.peek_interpreter_stack() is not None


def vectorized() -> bool:
    """Returns whether the active transform is torch.vmap."""
    if torch.compiler.is_compiling():
        return False
    top = torch._C._functorch.peek_interpreter_stack()
    return top is not None and top.key() == torch._C._functorch.TransformType.Vmap


def _inside(v: Velocity, low: Tensor, high: Tensor, x: Tensor, *times: Tensor) -> Tensor:
    """v at times within (low, high): at an end that is a jump, the limit from this side."""
    return v(x, *(t.clamp(float(low) + NEAR, float(high) - NEAR) for t in times))


def times(
    ts: Times, solver: Solver, jumps: tuple[float, ...] = (), time_shift: float = 1.0
) -> Tensor:
    """Returns the grid for `ts`: float64 on the CPU, strictly monotonic.

    A number of evaluations becomes the solver's own grid, shifted if the solver `shifts`, with a
    time at each jump; if a restart costs evaluations, the grid has fewer steps. A list of times
    keeps its gradients. Raises ValueError if the solver does not support them.
    """
    calls = _whole(ts)
    if calls is not None:
        return _own_grid(calls, solver, jumps, time_shift)
    ts = _tensor(ts)
    _check_grid(ts.detach())
    if not (ts.requires_grad and torch.is_grad_enabled()):
        return ts.detach()
    if not solver.time_gradient:
        able = ", ".join(name for name, s in SOLVERS.items() if s.time_gradient)
        raise ValueError(
            f"{solver.name} carries no gradient to its times; pass ts.detach(), or choose {able}"
        )
    return ts


def _whole(ts: Any) -> int | None:
    """ts as a number of calls, None where it is a list of times."""
    if isinstance(ts, bool | float):
        raise TypeError(f"{ts!r} is no number of calls; pass a whole one, or a list of times")
    if getattr(ts, "ndim", 0):
        return None
    try:
        return operator.index(ts)
    except TypeError:
        return None


def _tensor(ts: Tensor | Iterable[float]) -> Tensor:
    """Times as float64 on the CPU, in two moves: Apple's GPUs have no float64."""
    if isinstance(ts, Tensor):
        return ts.cpu().double()
    ts = list(ts)
    if any(isinstance(t, Tensor) for t in ts):
        return torch.stack([torch.as_tensor(t).cpu().double() for t in ts])
    return torch.tensor([float(t) for t in ts], dtype=torch.float64)


def _check_grid(ts: Tensor) -> None:
    if ts.ndim != 1 or len(ts) < 2:
        raise ValueError(f"a grid is a list of two times or more; this has shape {tuple(ts.shape)}")
    if not bool((ts.abs() <= FARTHEST).all()):  # NaN included
        raise ValueError(
            f"a grid goes strictly up or down through numbers from {-FARTHEST:g} to {FARTHEST:g}; "
            "noise is at 0, data at 1"
        )
    h = ts.diff()
    if not (bool((h > 0).all()) or bool((h < 0).all())):
        i = int((h * (ts[-1] - ts[0]).sign() > 0).int().argmin())
        raise ValueError(
            f"a grid goes strictly up or strictly down; times {i} and {i + 1} are {ts[i]:.6g} and "
            f"{ts[i + 1]:.6g}"
        )
    if float(h.abs().min()) < CLOSEST * max(1.0, float(ts.abs().max())):
        raise ValueError(
            f"two times of the grid are {float(h.abs().min()):.3g} apart, which no float64 weight "
            "resolves; leave one out"
        )


def laid(solver: Solver, steps: int, time_shift: float = 1.0) -> Tensor:
    """Returns the solver's own grid of so many steps for a field with this `time_shift`."""
    ts = GRIDS[solver.grid](steps) if isinstance(solver.grid, str) else solver.grid(steps)
    return earlier(ts, time_shift) if solver.shifts and time_shift != 1 else ts


def _own_grid(calls: int, solver: Solver, jumps: tuple[float, ...], time_shift: float) -> Tensor:
    n = solver.steps(calls)
    if not isinstance(solver.grid, str):
        return solver.grid(n)
    for steps in range(n, 0, -1):
        ts = at_jumps(laid(solver, steps, time_shift), jumps)
        if sum(solver.cost(len(part) - 1) for part in pieces(ts, jumps)) <= calls:
            return ts
    return laid(solver, n, time_shift)
