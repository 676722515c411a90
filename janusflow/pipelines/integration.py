"""Integrates a call's field with a solver, with a callback after each step."""

from collections import deque
from collections.abc import Iterator

from torch import Tensor

import samplers
from janusflow.pipelines.call_state import Call, StepCallback


class Integration:
    """A mixin of pipelines that integrate a flow."""

    def _solve(
        self, call: Call, v, start: Tensor, ts: Tensor, solver, callback: StepCallback | None
    ) -> Tensor:
        """Returns the state at the end of the grid `ts`, from `start` at its beginning.

        Raises FloatingPointError naming the prediction in which NaN or infinity appeared first.
        """
        try:
            return deque(self._states(call, v, start, ts, solver, callback), maxlen=1)[0]
        except FloatingPointError as error:
            raise _named(error, call.velocity, start, ts, solver) from None

    def _states(
        self, call: Call, v, x: Tensor, ts: Tensor, solver, callback: StepCallback | None
    ) -> Iterator[Tensor]:
        """Yields the states at ts[1:]; the solver restarts from a callback's state."""
        step = 0
        with self.progress_bar(total=len(ts) - 1) as bar:
            while step < len(ts) - 1:
                path = samplers.trajectory(v, x, ts[step:], solver)
                next(path)
                for t, x in path:
                    changed = self._step_done(call, callback, step, t, x)
                    step += 1
                    bar.update()
                    x = changed if changed is not None else x
                    yield x
                    if call.interrupt:
                        return
                    if changed is not None:
                        break

    def _step_done(self, call: Call, callback: StepCallback | None, step: int, t, x: Tensor):
        """Calls the callback; returns changed latents, or None."""
        if callback is None:
            return None
        tensors = {"latents": x}
        if "prompt_embeds" in callback.names:
            tensors["prompt_embeds"] = self._prompt_embeds(call)
        changed = callback.changed(self, step, t, tensors)
        if "prompt_embeds" in changed:
            self._drop_rows(call, changed["prompt_embeds"], tensors["prompt_embeds"])
        new = changed.get("latents")
        return None if new is None else new.to(x)


def _named(error: FloatingPointError, field, start: Tensor, ts: Tensor, solver):
    """Returns the error with the prediction where it starts, by a second run with checks."""
    if "starting state" in str(error):
        return error
    try:
        samplers.sample(field.checked(), start, ts, solver)
    except FloatingPointError as found:
        return FloatingPointError(
            f"{found}; try float32 or a smaller guidance_scale, or look at the weights"
        )
    return error
