"""The velocity compiled by torch.compile, one graph per shape; `pipe.compile()` switches it on.

A shape is the number of rows, the size of the latents and a bucket of prompt lengths. Prompts are
padded to their bucket with masked keys, so steps, solvers and prompts of one bucket share a graph;
a new shape compiles one more, once.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.prompt_cache import PromptCache

SHORTEST = 32  # tokens of the first bucket; each further one is twice as long
MOST = 64  # shapes; torch gives up after eight otherwise


def bucket(length: int) -> int:
    """Returns the length to which a prompt of so many tokens is padded."""
    return max(SHORTEST, 1 << (length - 1).bit_length())


class Compiled:
    """`JanusFlowModel.velocity` compiled by torch.compile with `options`.

    On a GPU the default mode is "reduce-overhead", which uses CUDA graphs.
    """

    def __init__(self, model: JanusFlowModel, **options):
        self.model = model
        self._graphed = model.device.type == "cuda"
        if self._graphed and not {"mode", "options", "backend"} & options.keys():
            options["mode"] = "reduce-overhead"
        self._step = torch.compile(_step, fullgraph=True, dynamic=False, **options)
        self._shapes: set[tuple] = set()

    def of(self, prompt: PromptCache, model: JanusFlowModel | None = None) -> Callable[..., Tensor]:
        """Returns velocity(latents, t), or with the target time of a flow map velocity(latents, t,
        target), for this prompt, which is padded to its bucket once, here.

        `model` is another one than its own, such as a flow map of the same sizes.
        """
        model = model or self.model
        prompt = prompt.padded(bucket(prompt.keys[0].shape[2]))
        parts = (prompt.keys, prompt.values, prompt.seen, prompt.length)
        return lambda latents, t, target=None: self._run(model, latents, t, parts, target)

    def _run(
        self, model: JanusFlowModel, latents: Tensor, t: Tensor, parts: tuple, target: Tensor | None
    ) -> Tensor:
        for time in (t, *([] if target is None else [target])):
            model.check_latents(latents, time, PromptCache(*parts))
        x, t = latents.to(model.dtype), t.to(latents.device)
        if target is not None:
            parts = (*parts, target.to(latents.device))
        shape = (x.shape, parts[2].shape, x.dtype, x.device, target is None, id(model))
        if shape not in self._shapes:
            self._shapes.add(shape)
            with torch._dynamo.config.patch(recompile_limit=MOST):
                return self._of_graph(model, x, t, parts).to(latents.dtype)
        return self._of_graph(model, x, t, parts).to(latents.dtype)

    def _of_graph(self, model: JanusFlowModel, x: Tensor, t: Tensor, parts: tuple) -> Tensor:
        if not self._graphed:
            return self._step(model, x, t, *parts)
        torch.compiler.cudagraph_mark_step_begin()
        return self._step(model, x, t, *parts).clone()  # the graph writes there again


def _step(
    model, x: Tensor, t: Tensor, keys, values, mask: Tensor, length: Tensor, target=None
) -> Tensor:
    return model.unchecked_velocity(x, t, PromptCache(keys, values, mask, length), None, target)
