"""Velocity fields v(x, t) and flow maps u(x, t, s), and wrappers around them.

x has any shape with the batch first; t is a 0-dim float64 tensor on the CPU, or (B, 1, ..., 1) if
each sample has its own time. t = 0 is noise, t = 1 is data, and v = data - noise.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from samplers.callables import check_arguments, check_velocity

Velocity = Callable[[Tensor, Tensor], Tensor]
WROTE = "v(x, t) wrote into its state x, which the solver still needs; work on x.clone()"
PROBED = 8  # results of a run that are copied, while it shows whether their memory is used again


def is_flow_map(v: object) -> bool:
    """Returns whether v takes a second time: u(x, t, s)."""
    return bool(getattr(v, "two_times", False))


def jumps_of(v: object) -> tuple[float, ...]:
    """Returns the times at which a velocity, rule or weight declares a jump; none by default."""
    jumps = getattr(v, "jumps", ())
    try:
        return tuple(t if isinstance(t, float) else float(t) for t in jumps)
    except (TypeError, ValueError):
        raise TypeError(
            f"the field's jumps are {jumps!r:.80}; make them a tuple of times, such as (0.1, 0.9)"
        ) from None


def time_shift_of(v: object) -> float:
    """Returns the field's `time_shift`, by which `auto` moves times towards the noise; or 1."""
    shift = getattr(v, "time_shift", 1.0)
    if not isinstance(shift, Real | Tensor) or not 0 < float(shift) < math.inf:
        raise ValueError(
            f"the field's time_shift is {shift!r:.80}; make it a positive number, 1 for none"
        )
    return float(shift)


def on_grid(v: Any, ts: Tensor) -> Any:
    """Returns the field for a run on this grid; rules that depend on the steps use it."""
    return v.on_grid(ts) if hasattr(v, "on_grid") else v


def grid_dependent(v: Any) -> bool:
    """Returns whether the field depends on the grid."""
    return bool(getattr(v, "grid_dependent", hasattr(v, "on_grid")))


class Wrapped:
    """Base class of a field around another, which passes on the attributes that solvers read."""

    def __init__(self, v: Velocity):
        check_velocity(v)
        self.v = v

    @property
    def two_times(self) -> bool:
        return is_flow_map(self.v)

    @property
    def jumps(self) -> tuple[float, ...]:
        return jumps_of(self.v)

    @property
    def time_shift(self) -> float:
        return time_shift_of(self.v)

    @property
    def project(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """A function (state, t) -> nearest allowed state, or None if all states are allowed."""
        return getattr(self.v, "project", None)

    @property
    def grid_dependent(self) -> bool:
        return grid_dependent(self.v)

    def on_grid(self, ts: Tensor) -> Wrapped:
        inner = on_grid(self.v, ts)
        if inner is self.v:
            return self
        again = copy.copy(self)
        again.v = inner
        return again


class Batched(Wrapped):
    """A network that expects t of shape (B,) in the state's dtype, as a field; see `batched`."""

    def __init__(self, net: Velocity, scale: float, sign: float, conditions: dict[str, Any]):
        super().__init__(net)
        self.scale, self.sign, self.conditions = scale, sign, conditions

    def __call__(self, x: Tensor, *times: Tensor) -> Tensor:
        first = x if isinstance(x, Tensor) else torch.utils._pytree.tree_leaves(x)[0]
        rows = [(self.scale * t).to(first).reshape(-1).expand(len(first)) for t in times]
        k = self.v(x, *rows, **self.conditions)
        return k if self.sign == 1 else torch.utils._pytree.tree_map(lambda part: -part, k)


def batched(net: Callable, scale: float = 1.0, sign: int = 1, **conditions: Any) -> Batched:
    """Returns the field sign net(x, scale t, **conditions) with t of shape (B,) in the state's
    dtype.

    Use it for networks that embed one time per sample. `scale` is 1000 if they count training
    steps, `sign` is -1 if they predict noise - data. `conditions` are passed on with every call. A
    network of two times, net(x, t, s), gets both in this form: `flow_map(batched(net))`.
    """
    if sign not in (1, -1):
        raise ValueError(
            f"sign is {sign!r}; expected 1 (net predicts data - noise) or -1 (noise - data)"
        )
    return Batched(net, scale, sign, conditions)


class FlowMap(Wrapped):
    """u(x, t, s), the mean velocity from t to s; see `flow_map`."""

    two_times = True

    def __init__(self, u: Callable[[Tensor, Tensor, Tensor], Tensor], output: str):
        super().__init__(u)
        self.output = output

    def __call__(self, x: Tensor, t: Tensor, s: Tensor | None = None) -> Tensor:
        """Returns the mean velocity from t to s; without s the velocity at t."""
        if self.output == "velocity":
            return self.v(x, t, t if s is None else s)
        if s is None:
            raise ValueError(
                "a flow map that returns states gives no velocity at a single time; use a solver "
                'of flow maps such as "jump", or wrap the mean velocity'
            )
        y = self.v(x, t, s)
        if isinstance(x, Tensor):
            return (fitting(y, x) - x) / (s - t)
        return torch.utils._pytree.tree_map(lambda b, a: (fitting(b, a) - a) / (s - t), y, x)

    def jump(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Returns the state at s of the path through x at time t: x + (s - t) u(x, t, s)."""
        return self.v(x, t, s) if self.output == "state" else x + (s - t) * self.v(x, t, s)


def flow_map(
    u: Callable[[Tensor, Tensor, Tensor], Tensor], output: Literal["velocity", "state"] = "velocity"
) -> FlowMap:
    """Returns a function of two times as a field for the solvers "jump", "consistency" and
    "restart".

    u(x, t, s) is the mean velocity (x_s - x_t) / (s - t) of the path through x at time t, which at
    s = t is the velocity; with output="state" the function returns x_s itself. Solvers of
    velocities use u(x, t, t). Boffi et al. 2024 (flow maps), Geng et al. 2025 (MeanFlow).
    """
    if output not in ("velocity", "state"):
        raise ValueError(f"output is {output!r}; a flow map returns its 'velocity' or its 'state'")
    return FlowMap(u, output)


class Counted(Wrapped):
    """A field that counts its evaluations; one with its own count (guided) reports that."""

    def __init__(self, v: Velocity):
        super().__init__(v)
        self._tally = [0]  # shared with the copies that a grid makes
        self._source = v
        self._before = getattr(v, "calls", 0)

    def __call__(self, x: Tensor, *times: Tensor) -> Tensor:
        self._tally[0] += 1
        return self.v(x, *times)

    @property
    def calls(self) -> int:
        """Network evaluations since this object was made."""
        own = not hasattr(self._source, "calls")
        return self._tally[0] if own else self._source.calls - self._before


def count(v: Velocity) -> Counted:
    """Returns v with an attribute `calls`, the number of network evaluations so far.

    A velocity that takes several evaluations, or none, per call keeps its own total in an attribute
    `calls`; that total is reported.
    """
    return Counted(v)


class Watched:
    """A velocity whose results are cast to the state's dtype, copied if needed, and checked for NaN
    at the end.

    A checksum per call stays on the state's device and is read once after the run, so there is no
    synchronisation. Results of a velocity that always writes into the same memory (a replayed CUDA
    graph, a ring of buffers) are copied. Such a result has the address of one of the first
    `PROBED`, whose memory was not given back since; weak references tell, and keep no result.
    """

    def __init__(self, v: Velocity):
        self.v = v
        self.sums: list[Tensor] = []
        self.times: list[Tensor] = []
        self.taken: dict[int, StorageWeakRef] = {}  # memory of the first results by its address
        self.reused = False
        self.start: tuple[Tensor, Tensor] | None = None  # sums of the state around the first call
        self.jumps, self.time_shift = jumps_of(v), time_shift_of(v)

    def __call__(self, x: Tensor, t: Tensor, *s: Tensor) -> Tensor:
        before = -1 if x.is_inference() else x._version
        k = self.v(x, t, *s) if self.sums else self._first(x, t, *s)
        if before >= 0 and x._version != before:
            raise ValueError(WROTE)
        if not isinstance(k, Tensor) or k.shape != self.shape or k.dtype is not x.dtype:
            k = fitting(k, x)
        elif self.reused or len(self.sums) < PROBED or k.data_ptr() in self.taken:
            k = self._own(k)
        rows = k.detach() if k.requires_grad else k
        self.sums.append(rows.sum(1) if k.ndim == 2 else sums(rows))
        self.times.append(t)
        return k

    def _first(self, x: Tensor, *times: Tensor) -> Tensor:
        before, self.shape = sums(x.detach()), x.shape
        k = fitting(first_call(self.v, x, *times), x)
        self.start = before, sums(x.detach())
        return k

    def _own(self, k: Tensor) -> Tensor:
        """Returns a copy of k, or k itself where its memory is new, at an address of old."""
        place, early = address(k), len(self.sums) < PROBED
        if not self.reused:
            self.reused = place == 0 or used_again(self.taken.pop(place, None), k)
            if early and place:
                self.taken[place] = StorageWeakRef(k.untyped_storage())
        return k.clone() if self.reused or early else k

    def check(self, start: Tensor) -> None:
        """Raises FloatingPointError, naming the first time at which a velocity was not finite, and
        ValueError if v wrote into its first state, also if its count of writes does not tell.
        """
        if start.is_meta:  # no values
            return
        broken = ~torch.stack(self.sums).isfinite() if self.sums else torch.zeros(0, 1)
        if bool(broken.any()):
            i = int(broken.any(1).int().argmax())
            samples = broken[i].nonzero()[:, 0].tolist()
            whose = f"of sample {samples[0] + 1} of {broken.shape[1]} "
            whose = whose if len(samples) < broken.shape[1] or len(samples) == 1 else ""
            if not bool(start.isfinite().all()):
                raise FloatingPointError(
                    "the starting state holds NaN or infinity, before any call of v; correct the "
                    'noise or pass nonfinite="return"'
                )
            raise FloatingPointError(
                f"the velocity {whose}was not finite at t = {float(self.times[i].min()):.6g} "
                f"(call {i + 1} of {len(broken)}); "
                'correct v there or pass nonfinite="return"'
            )
        if self.start and not torch.allclose(*self.start, rtol=0, atol=0, equal_nan=True):
            raise ValueError(WROTE)


def sums(k: Tensor) -> Tensor:
    """Returns the sum over each sample, (B, ...) -> (B,)."""
    return flat(k).sum(1) if k.ndim else k.reshape(1).clone()


def widest(device: torch.device) -> torch.dtype:
    """Returns float64, or float32 on devices that refuse it, as Apple's GPUs do."""
    try:
        return torch.zeros((), dtype=torch.float64, device=device).dtype
    except TypeError:
        return torch.float32


def flat(x: Tensor) -> Tensor:
    """(B, ...) -> (B, D), also for (B,) and for an empty batch."""
    return x.reshape(len(x), math.prod(x.shape[1:]))


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, ..., 1), to broadcast with states like (B, ...)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def address(k: Tensor) -> int:
    """Returns the address of a tensor's memory; 0 if unknown, which counts as reused."""
    try:
        return k.data_ptr()
    except RuntimeError:
        return 0


def used_again(memory: StorageWeakRef | None, k: Tensor) -> bool:
    """Returns whether k lies in this earlier memory, which is still held or belongs to others.

    Memory that torch does not own (of numpy, a CUDA graph's pool) may be written to unheld.
    """
    if memory is None:
        return False
    return not memory.expired() or not k.untyped_storage().resizable()


def unwatched(v: Velocity) -> Velocity:
    """Returns v cast to the state's dtype, unchecked, for transforms that hide values."""

    def fitted(x: Tensor, *times: Tensor) -> Tensor:
        return fitting(v(x, *times), x)

    fitted.jumps, fitted.time_shift = jumps_of(v), time_shift_of(v)
    return fitted


def fitting(k: Any, x: Tensor) -> Tensor:
    """Returns k in the dtype of x. Raises TypeError or ValueError if it is no velocity of x."""
    if not isinstance(k, Tensor):
        kind = type(k).__name__
        held = [
            name for name in ("sample", "prev_sample") if isinstance(getattr(k, name, 0), Tensor)
        ]
        way = f"the tensor in it, out.{held[0]}" if held else "a tensor shaped like x"
        raise TypeError(f"v(x, t) returned {kind}; return {way}")
    if k.layout is not x.layout or k.device != x.device:
        raise ValueError(
            f"v(x, t) is {k.layout} on {k.device} where x is {x.layout} on {x.device}; return a "
            "velocity like x"
        )
    if k.shape != x.shape:
        raise ValueError(
            f"v(x, t) has shape {tuple(k.shape)} where x has {tuple(x.shape)}; return a velocity "
            "of the shape of x"
        )
    if k.is_complex():
        raise TypeError(
            f"v(x, t) has dtype {k.dtype}, and the state {x.dtype}; return its real part, or stack "
            "real and imaginary parts in the state"
        )
    return k.to(x.dtype)


def first_call(v: Velocity, x: Tensor, t: Tensor, *s: Tensor) -> Any:
    """Returns v(x, t).

    If that fails although t of shape (B,) would work, the error says so.
    """
    try:
        return v(x, t, *s)
    except torch.OutOfMemoryError:
        raise
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, TypeError):
            check_arguments(getattr(v, "forward", v), "velocity", "x", "t", *("s" for _ in s))
        if isinstance(v, Batched) or not _works_batched(v, x, t, *s):
            raise
        raise TypeError(
            f"v(x, t) fails for t of shape {tuple(t.shape)}, {t.dtype}, and works for shape (B,) "
            f"in the state's dtype: pass samplers.batched(v) in its place ({error!s:.200})"
        ) from error


def _works_batched(v: Velocity, x: Tensor, *times: Tensor) -> bool:
    try:
        with torch.no_grad():
            k = Batched(v, 1.0, 1, {})(x, *times)
    except Exception:
        return False
    return isinstance(k, Tensor) and k.shape == x.shape
