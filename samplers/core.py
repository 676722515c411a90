"""What a solver is, how it is found, and how it is run.

A velocity is any callable v(x, t): x of any shape with the batch first, t a 0-dim float64 tensor on
the CPU; t = 0 is noise, t = 1 is data, and v = data - noise on the straight path. A solver is a
generator over a time grid that says what it promises; the tests hold it to that.
"""

import inspect
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from samplers.grids import GRIDS, NEAR, Grid, at_jumps, pieces

Velocity = Callable[[Tensor, Tensor], Tensor]
Path = Iterator[Tensor]
Times = Tensor | Iterable[float] | int
FARTHEST = 1e3  # time of a grid
CLOSEST = 1e-12  # two times, relative to the largest


@dataclass(frozen=True, kw_only=True)
class Solver:
    """A generator path(v, x, ts) over the states at ts[1:], and what it promises."""

    name: str
    path: Callable[..., Path]
    order: int | None  # of the endpoint's error in the step size; None where none is promised
    calls: int  # of v, per step
    extra: int | Callable[[int], int] = 0  # calls of the start-up, given the number of steps
    adaptive: bool = False  # chooses its own steps between the times of the grid
    stochastic: bool = False
    grid: str | Grid = "uniform"  # in GRIDS, or a function of the number of steps
    doc: str = ""

    def cost(self, steps: int) -> int:
        """Calls of v that a grid of so many steps takes."""
        if self.adaptive:
            raise ValueError(
                f"{self.name} counts its calls as it goes; wrap v in count() to see them"
            )
        extra = self.extra(steps) if callable(self.extra) else self.extra
        return self.calls * steps + extra

    def steps(self, calls: int) -> int:
        """Steps that take exactly so many calls of v."""
        if self.adaptive:
            raise ValueError(f"{self.name} chooses its own steps; give it times, such as [0, 1]")
        below, n = None, 1
        while self.cost(n) < calls:
            below, n = self.cost(n), n + 1
        if self.cost(n) != calls:
            works = " or ".join(str(c) for c in (below, self.cost(n)) if c is not None)
            raise ValueError(f"{self.name} cannot spend {calls} calls; give it {works}")
        return n

    def with_options(self, **options: Any) -> "Solver":
        """The same solver with some of its options bound."""
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


SOLVERS: dict[str, Solver] = {}


def solver(
    *, order: int | None, calls: int = 1, **promises: Any
) -> Callable[[Callable[..., Path]], Callable[..., Path]]:
    """Registers a path under its function's name; the fields of `Solver` are its promises."""

    def register(path: Callable[..., Path]) -> Callable[..., Path]:
        name, doc = path.__name__, inspect.getdoc(path) or ""
        SOLVERS[name] = Solver(name=name, path=path, order=order, calls=calls, doc=doc, **promises)
        return path

    return register


def find(solver: str | Solver, **options: Any) -> Solver:
    """The solver of that name (or the one given) with its options bound."""
    if isinstance(solver, str):
        if solver not in SOLVERS:
            raise ValueError(f"no solver named {solver!r}; choose one of {', '.join(SOLVERS)}")
        solver = SOLVERS[solver]
    return solver.with_options(**options)


def steps(ts: Tensor) -> Iterator[tuple[Tensor, Tensor, float]]:
    """(t, s, s - t) for each step: two times for v, and a plain number to multiply tensors with."""
    for (t, s), (a, b) in zip(pairwise(ts.unbind()), pairwise(ts.tolist()), strict=True):
        yield t, s, b - a


def advance(x: Tensor, *terms: tuple[float, Tensor]) -> Tensor:
    """x + sum of w k over the terms (w, k): a single new tensor, one pass over memory per term."""
    (w, k), *rest = terms
    x = torch.add(x, k, alpha=w)
    for w, k in rest:
        x.add_(k, alpha=w)
    return x


def sample(
    v: Velocity,
    noise: Tensor,
    ts: Times,
    solver: str | Solver = "heun",
    *,
    nonfinite: Literal["raise", "return"] = "raise",
    **options: Any,
) -> Tensor:
    """Solves dx/dt = v(x, t) from ts[0] to ts[-1]; the state there, shaped like `noise` and
    in its dtype, or in float32 if that is narrower.

    An integer for `ts` is a number of calls of v, from which the solver's own grid follows. The
    options are the solver's. Where v has an attribute `jumps`, times at which it jumps, that grid
    gets a time at each of them; at each time of any grid that is one, the solver begins anew.
    Gradients are followed unless the caller is under torch.no_grad().
    Raises FloatingPointError if a velocity was not finite, naming the time at which one first was
    not; with nonfinite="return" the state is returned as it is.
    """
    path = trajectory(v, noise, ts, solver, nonfinite=nonfinite, **options)
    return deque(path, maxlen=1)[0][1]


def trajectory(
    v: Velocity,
    noise: Tensor,
    ts: Times,
    solver: str | Solver = "heun",
    *,
    nonfinite: Literal["raise", "return"] = "raise",
    **options: Any,
) -> Iterator[tuple[Tensor, Tensor]]:
    """(t, state) at every time of the grid, the first of them (ts[0], noise); see `sample`."""
    if nonfinite not in ("raise", "return"):
        raise ValueError(f'nonfinite is "raise" or "return", not {nonfinite!r}')
    if not noise.dtype.is_floating_point:
        raise TypeError(f"the state is {noise.dtype}; pass floating-point noise")
    if noise.dtype.itemsize < 4:
        noise = noise.float()
    chosen = find(solver, **options)
    grid = times(ts, chosen, jumps := tuple(getattr(v, "jumps", ())))
    watched = _Watched(v)
    return _run(watched, noise, grid, jumps, chosen, nonfinite == "raise")


def _run(
    v: "_Watched",
    noise: Tensor,
    ts: Tensor,
    jumps: tuple[float, ...],
    solver: Solver,
    check: bool,
) -> Iterator[tuple[Tensor, Tensor]]:
    yield ts[0], (state := noise)
    parts = pieces(ts, jumps) if jumps and not solver.stochastic else [ts]
    for part in parts:
        field = v if len(parts) == 1 else partial(_inside, v, *sorted((part[0], part[-1])))
        path = solver.path(field, state, part)
        for t, state in zip(part[1:].unbind(), path, strict=True):
            yield t, state
    if check:
        v.check(noise)


def _inside(v: Velocity, low: Tensor, high: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """v at times within (low, high): at an end that is a jump, the limit from this side."""
    return v(x, t.clamp(float(low) + NEAR, float(high) - NEAR))


def times(ts: Times, solver: Solver, jumps: tuple[float, ...] = ()) -> Tensor:
    """The grid that `ts` stands for, float64 on the CPU, strictly monotonic.

    A number of calls becomes the solver's own grid with a time at each jump; where beginning anew
    costs calls, that grid has fewer steps.
    """
    if isinstance(ts, int):
        return _own_grid(ts, solver, jumps)
    ts = ts if isinstance(ts, Tensor) else torch.tensor([float(t) for t in ts], dtype=torch.float64)
    ts = ts.detach().to("cpu", torch.float64)
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
    return ts


def _own_grid(calls: int, solver: Solver, jumps: tuple[float, ...]) -> Tensor:
    n = solver.steps(calls)
    if not isinstance(solver.grid, str):
        return solver.grid(n)
    for steps in range(n, 0, -1):
        ts = at_jumps(GRIDS[solver.grid](steps), jumps)
        if sum(solver.cost(len(part) - 1) for part in pieces(ts, jumps)) <= calls:
            return ts
    return GRIDS[solver.grid](n)


class _Watched:
    """v in the state's dtype, with a number kept per call and sample so that NaN can be traced.

    The sums stay where the state lives and are looked at once, at the end: no synchronisation.
    """

    def __init__(self, v: Velocity):
        self.v = v
        self.sums: list[Tensor] = []
        self.times: list[Tensor] = []

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        k = self.v(x, t)
        if k.shape != x.shape:
            raise ValueError(
                f"v(x, t) has shape {tuple(k.shape)} where x has {tuple(x.shape)}; they must agree"
            )
        if k.dtype != x.dtype:
            k = k.to(x.dtype)
        rows = k.detach()
        self.sums.append(rows.flatten(1).sum(1) if k.ndim > 1 else rows.reshape(-1).clone())
        self.times.append(t)
        return k

    def check(self, start: Tensor) -> None:
        broken = ~torch.stack(self.sums).isfinite() if self.sums else torch.zeros(0, 1)
        if bool(broken.any()):
            i = int(broken.any(1).int().argmax())
            samples = broken[i].nonzero()[:, 0].tolist()
            whose = f"of sample {samples[0] + 1} of {broken.shape[1]} "
            whose = whose if len(samples) < broken.shape[1] or len(samples) == 1 else ""
            t = self.times[i].double().min()
            if not bool(start.isfinite().all()):
                raise FloatingPointError(
                    "the starting state holds NaN or infinity, before any call of v; mend the "
                    'noise or pass nonfinite="return"'
                )
            raise FloatingPointError(
                f"the velocity {whose}was not finite at t = {t:.6g} (call {i + 1} of "
                f"{len(broken)}); "
                'mend v there or pass nonfinite="return"'
            )


class Counted:
    """v that counts; a field with a count of its own (a guided one) is asked for it instead."""

    def __init__(self, v: Velocity):
        self.v = v
        self._own = 0
        self._before = getattr(v, "calls", 0)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self._own += 1
        return self.v(x, t)

    @property
    def jumps(self) -> tuple[float, ...]:
        """Those of v."""
        return tuple(getattr(self.v, "jumps", ()))

    @property
    def calls(self) -> int:
        """Network evaluations since this object was made."""
        return self.v.calls - self._before if hasattr(self.v, "calls") else self._own


def count(v: Velocity) -> Counted:
    """v with .calls, the number of network evaluations so far.

    A velocity that takes several evaluations, or none, per call keeps its own running total in an
    attribute `calls`; that total is what is reported.
    """
    return Counted(v)
