"""The state of one pipeline call, separate for each thread, and its step callback.

diffusers keeps such state on the pipeline (`pipe._interrupt`, `pipe._guidance_scale`). Here these
names refer to the call that runs in the same thread, so a callback changes its own call only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Tensor

from janusflow.models import lora
from janusflow.pipelines.guided_velocity import read_guidance, rule_of
from janusflow.pipelines.weight_gate import gate_of
from samplers.callables import check_arguments
from samplers.guidance import Guided


@dataclass(eq=False)
class Call:
    """A running call; `velocity` holds the rule that a new `guidance_scale` changes on the way."""

    pipe: object
    num_timesteps: int = 0
    guidance_scale: object = None
    interrupt: bool = False
    velocity: object = None
    prompts: tuple[list[str], object] = ((), None)  # and the negative ones
    device: torch.device | None = None  # found once, as diffusers searches all modules for hooks
    outer: Call | None = field(default=None, repr=False)

    def guide(self, guidance) -> None:
        """Sets the guidance rule for the rest of the call."""
        if isinstance(self.velocity, Guided):
            self.velocity.rule = rule_of(guidance)
        else:
            self.velocity.replace_rule(guidance)


_CURRENT: ContextVar[Call | None] = ContextVar("janusflow_call", default=None)


def current(pipe) -> Call | None:
    """Returns this pipeline's innermost call that runs in this thread."""
    call = _CURRENT.get()
    while call is not None and call.pipe is not pipe:
        call = call.outer
    return call


def _computes(call: Call | None, network) -> bool:
    """Returns whether a call, or one that it runs inside of, uses this network."""
    while call is not None:
        if call.pipe.model is network:
            return True
        call = call.outer
    return False


def between_calls(method: Callable) -> Callable:
    """A decorator for methods that change the network's weights: they wait for running calls."""

    @functools.wraps(method)
    def waiting(self, *args, **kwargs):
        with self._changing_weights(method.__name__):
            return method(self, *args, **kwargs)

    return waiting


class CallState:
    """A mixin of pipelines: what diffusers' callbacks read and write, per call."""

    @contextmanager
    def _call(self, adapters=None, **state) -> Iterator[Call]:
        """A context of one call, from its beginning to its end, after which offloaded parts leave
        the device.

        It uses these adapters, or those that are active when it starts.
        """
        call = Call(self, outer=_CURRENT.get(), **state)
        running = self.__dict__.setdefault("_running_calls", set())
        inside = _computes(call.outer, self.model)
        try:
            with gate_of(self.model).reading(nested=inside):
                token = _CURRENT.set(call)
                running.add(call)
                try:
                    with lora.active(self._adapters_of(adapters, inside)):
                        yield call
                finally:
                    running.discard(call)
                    _CURRENT.reset(token)
        finally:
            if not running and not inside:  # no other call needs the parts where they are
                self.maybe_free_model_hooks()

    def _callback(self, options) -> StepCallback | None:
        """Returns the step callback of a call's options."""
        names = options.callback_on_step_end_tensor_inputs
        return StepCallback.of(options.callback_on_step_end, names, self._callback_tensor_inputs)

    def _adapters_of(self, chosen, inside: bool) -> dict[str, float] | None:
        """Returns the adapters of a call: those of an outer call only if it uses this network."""
        if inside:
            return self._adapter_weights(chosen)
        with lora.active(None):  # another network's call says nothing of this one's
            return self._adapter_weights(chosen)

    @contextmanager
    def _changing_weights(self, wanted: str) -> Iterator[None]:
        """A context that waits for all threads' calls that use the network's weights.

        Raises RuntimeError inside a call of this thread, which would wait for itself.
        """
        if _computes(_CURRENT.get(), self.model):
            raise RuntimeError(
                f"{wanted} was called during a call that uses these weights, for example from its "
                "callback; wait until that call has ended"
            )
        with gate_of(self.model).changing():
            yield

    @property
    def _interrupt(self) -> bool:
        """Whether this thread's call should end.

        Set in a callback it ends that call only; set in a thread without a call (a stop button) it
        ends all running calls.
        """
        call = current(self)
        return call is not None and call.interrupt

    @_interrupt.setter
    def _interrupt(self, value: bool) -> None:
        own = current(self)
        for call in [own] if own else list(self.__dict__.get("_running_calls", ())):
            call.interrupt = bool(value)

    interrupt = property(lambda self: self._interrupt)

    @property
    def _execution_device(self) -> torch.device:
        """The device on which this pipeline computes, which does not change during a call."""
        call = current(self)
        if call is None:
            return super()._execution_device
        if call.device is None:
            call.device = super()._execution_device
        return call.device

    @property
    def num_timesteps(self) -> int | None:
        """The number of steps of this thread's call; None outside a call."""
        call = current(self)
        return call and call.num_timesteps

    @property
    def guidance_scale(self):
        """The guidance weight or rule of this thread's call, for callbacks to replace, or None."""
        call = current(self)
        return call and call.guidance_scale

    @guidance_scale.setter
    def guidance_scale(self, value) -> None:
        call = current(self)
        if call is None:
            raise AttributeError(
                "guidance_scale belongs to a call; pass it to pipe(...), or set it in a callback"
            )
        call.guidance_scale = read_guidance(value)
        if call.velocity is not None:
            call.guide(call.guidance_scale)

    @property
    def _guidance_scale(self):
        """diffusers' attribute with diffusers' meaning: 1 and less is no guidance."""
        return self.guidance_scale

    @_guidance_scale.setter
    def _guidance_scale(self, value) -> None:
        small = isinstance(value, int | float) and value <= 1
        self.guidance_scale = 1.0 if small else value

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether this thread's call also evaluates the unconditional prompt."""
        return self.guidance_scale not in (None, 1)


@dataclass(frozen=True)
class StepCallback:
    """A user's function that runs after each step, with the tensors it asked for.

    It receives copies. Tensors that it changes in place and tensors that it returns both count;
    `changed` says which differ afterwards.
    """

    function: Callable
    names: tuple[str, ...]

    @classmethod
    def of(
        cls, function: Callable | None, names: Sequence[str] | None, known: Sequence[str]
    ) -> StepCallback | None:
        """Returns the callback, or None without a function.

        Raises ValueError if one of `names` is none of the `known` tensors.
        """
        if function is None:
            _names(names, known)
            return None
        if not callable(function):
            raise TypeError(
                f"callback_on_step_end is {type(function).__name__}; expected a function of "
                "(pipe, step, t, tensors)"
            )
        check_arguments(function, "callback_on_step_end", "pipe", "step", "t", "tensors")
        return cls(function, _names(getattr(function, "tensor_inputs", None) or names, known))

    def changed(self, pipe, step: int, t, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Calls the function with (pipe, step, t, {name: tensor}) and returns the tensors that it
        changed.

        Raises TypeError if it returns neither a dictionary of tensors nor None, and ValueError for
        a name that it was not given, for another shape, and for NaN or infinity.
        """
        given = {name: tensors[name].clone() for name in self.names}
        returned = self.function(pipe, step, t, dict(given))
        if returned is not None and not isinstance(returned, dict):
            raise TypeError(
                f"the callback returned {type(returned).__name__}; expected a dictionary of "
                "tensors, or None"
            )
        found = given | (returned or {})
        if unknown := [name for name in found if name not in tensors]:
            raise ValueError(
                f"the callback returned {unknown[0]!r}; this pipeline takes {', '.join(tensors)}"
            )
        return {
            name: _checked(new, name, tensors[name].shape)
            for name, new in found.items()
            if not _equal(new, tensors[name])
        }


def _names(names: Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of tensors that a callback asks for. Raises ValueError for unknown ones."""
    names = names or ()
    if not isinstance(names, list | tuple):
        raise TypeError(
            f"callback_on_step_end_tensor_inputs is {names!r:.60}; expected a list of names such "
            f"as {list(known[:1])}"
        )
    if unknown := [name for name in names if name not in known]:
        raise ValueError(
            f"callback_on_step_end_tensor_inputs holds {unknown[0]!r:.60}; this pipeline gives "
            f"{', '.join(known)}"
        )
    return tuple(names)


def _checked(new, name: str, shape: torch.Size) -> Tensor:
    """Returns a tensor from a callback; the unconditional rows of prompt_embeds may be missing."""
    if not isinstance(new, Tensor):
        raise TypeError(
            f"the callback returned {type(new).__name__} as {name!r}; expected a tensor, or leave "
            "the name out for no change"
        )
    if name == "latents" and new.shape != shape:
        raise ValueError(
            f"the callback returned latents of shape {tuple(new.shape)}; expected {tuple(shape)}"
        )
    if not bool(new.isfinite().all()):
        raise ValueError(
            f"the callback returned {name} with NaN or infinity; correct what it returns"
        )
    return new


def _equal(a, b: Tensor) -> bool:
    """Returns whether two tensors hold the same numbers, NaN included."""
    if a is b:
        return True
    if (
        not isinstance(a, Tensor)
        or a.shape != b.shape
        or a.dtype != b.dtype
        or a.device != b.device
    ):
        return False
    return bool(torch.isclose(a, b, rtol=0, atol=0, equal_nan=True).all())
