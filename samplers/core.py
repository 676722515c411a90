"""Runs a solver on a velocity.

A velocity is any callable v(x, t): x has any shape with the batch first, t is a 0-dim float64
tensor on the CPU; t = 0 is noise, t = 1 is data, and v = data - noise on the straight path.
"""

from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from samplers.callables import check_velocity
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
from samplers.grids import NEAR, pieces
from samplers.run_grid import Times as Times
from samplers.run_grid import laid as laid
from samplers.run_grid import times as times
from samplers.solver_registry import SOLVERS as SOLVERS
from samplers.solver_registry import Path as Path
from samplers.solver_registry import Solver as Solver
from samplers.solver_registry import advance as advance
from samplers.solver_registry import find as find
from samplers.solver_registry import solver as solver
from samplers.solver_registry import steps as steps
from samplers.states import Layout


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

    Raises ValueError if v writes into the state that it gets, and FloatingPointError if a velocity
    was not finite, naming the first such time; with
    nonfinite="return" the state is returned anyway, as always under torch.compile, other traces
    (torch.export, make_fx, FakeTensorMode) and the transforms of torch.func, where values cannot be
    inspected.
    """
    if torch.compiler.is_compiling() or traced(noise):
        from samplers import compiled_run  # which imports torch._dynamo, a second of start-up

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
    """Yields (t, state) at every time of the grid, starting with (ts[0], noise); see `sample`.

    Raises ValueError if a state is changed in place, because multistep solvers still need it.
    """
    if nonfinite not in ("raise", "return"):
        raise ValueError(f"nonfinite is {nonfinite!r}; expected 'raise' or 'return'")
    check_velocity(v)
    if traced(noise):
        raise TypeError(
            "a trace (torch.export, make_fx, FakeTensorMode) has no values of states; call "
            "samplers.sample, whose whole run can be traced"
        )
    chosen = find(solver, **options)
    if hasattr(ts, "chosen_for"):  # a pilot's grid brings the solver that it found best
        chosen = ts.chosen_for(chosen)
    if not isinstance(noise, Tensor):
        state, layout = Layout.of(noise)
        path = trajectory(layout.field(v), state, ts, chosen, nonfinite=nonfinite)
        return ((t, layout.unpack(x)) for t, x in path)
    refuse_state(noise)
    if noise.dtype.itemsize < 4:
        noise = noise.float()
    if "Functionalize" in transforms():
        raise TypeError(
            "torch.func.functionalize hides the numbers of the grid; sample outside of it, and "
            "give it the velocity alone"
        )
    if chosen.adaptive:
        refuse_vmap(f"{chosen.name} chooses its steps by", "choose a solver with fixed steps")
    if chosen.maps and not is_flow_map(v):
        raise TypeError(
            f"{chosen.name} takes a flow map u(x, t, s); wrap it with samplers.flow_map(u), or "
            "choose a solver of velocities"
        )
    grid = times(ts, chosen, jumps_of(v), time_shift_of(v))
    return _run(on_grid(v, grid), noise, grid, chosen, nonfinite == "raise")


def refuse_state(noise: Tensor) -> None:
    """Raises TypeError for a tensor that is not dense, floating-point and (B, ...)."""
    if noise.is_nested or not noise.ndim or noise.layout is not torch.strided:
        told = "nested" if noise.is_nested else "a number" if not noise.ndim else str(noise.layout)
        raise TypeError(f"the state is {told}; pass a dense tensor (B, ...), the batch first")
    if not noise.dtype.is_floating_point:
        raise TypeError(f"the state is {noise.dtype}; pass floating-point noise")


def watched(v: Velocity) -> Velocity:
    """Returns v as `Watched`, or only cast to the state's dtype where values are hidden."""
    return unwatched(v) if transformed() else Watched(v)


def _run(
    v: Velocity, noise: Tensor, ts: Tensor, solver: Solver, check: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    yield ts[0], noise
    if not noise.numel():  # no sample, no call
        yield from ((t, noise) for t in ts[1:].unbind())
        return
    field = watched(v)
    project = getattr(v, "project", None)  # onto what the field keeps, as inpainting does
    for t, x in _pieces(field, noise, ts, solver, jumps_of(v)):
        before = -1 if x.is_inference() else x._version
        yield t, x if project is None else project(x, t)
        if before >= 0 and x._version != before:
            raise ValueError(
                f"the state at t = {float(t):.6g} was changed in place, and the solver still needs "
                "it; change a clone, and begin a new run from it"
            )
    if check and isinstance(field, Watched):
        field.check(noise)


def _pieces(
    v: Velocity, state: Tensor, ts: Tensor, solver: Solver, jumps: tuple[float, ...]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields (t, state) from ts[1] on; the solver restarts where the field jumps."""
    parts = pieces(ts, jumps) if jumps and not solver.stochastic else [ts]
    for part in parts:
        field = v if len(parts) == 1 else partial(_inside, v, *sorted((part[0], part[-1])))
        if field is not v:
            field.time_shift = time_shift_of(v)
        path = solver.path(field, state, part)
        for t, state in zip(part[1:].unbind(), path, strict=True):
            yield t, state


def transformed() -> bool:
    """Returns whether torch.compile or a transform of torch.func (vmap, grad, jvp) is active."""
    if torch.compiler.is_compiling():
        return True
    return torch._C._functorch.peek_interpreter_stack() is not None


def traced(noise: Any) -> bool:
    """Returns whether states have no values: in make_fx, FakeTensorMode and torch.export."""
    keys = torch._C._TorchDispatchModeKey
    active = map(torch._C._get_dispatch_mode, (keys.PROXY, keys.FAKE))
    return hasattr(noise, "fake_mode") or any(mode is not None for mode in active)


def vectorized() -> bool:
    """Returns whether the active transform is torch.vmap."""
    if torch.compiler.is_compiling():
        return False
    top = torch._C._functorch.peek_interpreter_stack()
    return top is not None and top.key() == torch._C._functorch.TransformType.Vmap


def refuse_vmap(doing: str, instead: str) -> None:
    """Raises TypeError under torch.vmap, for what looks at the state."""
    if vectorized():
        raise TypeError(f"{doing} looking at the state, which torch.vmap forbids; {instead}")


def transforms() -> set[str]:
    """Returns the names of all active transforms of torch.func: Vmap, Grad, Jvp, Functionalize."""
    if not transformed() or torch.compiler.is_compiling():
        return set()
    return {level.key().name for level in torch._C._functorch.get_interpreter_stack()}


def _inside(v: Velocity, low: Tensor, high: Tensor, x: Tensor, *times: Tensor) -> Tensor:
    """Returns v at times moved inside (low, high), at a jump the limit of this side."""
    return v(x, *(t.clamp(float(low) + NEAR, float(high) - NEAR) for t in times))
