"""A step's losses and gradients, replayed as one CUDA graph."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

WARM = 3  # runs before a capture, as torch asks for


class Captured:
    """A function that computes gradients and returns tensors, captured once and then replayed.

    The gradients of `parameters` and the returned tensors keep their memory: a replay overwrites
    them. On a CPU the function is simply called.
    """

    def __init__(self, step: Callable[[], Sequence[Tensor]], parameters: Sequence[nn.Parameter]):
        self._step, self._parameters, self._graph = step, list(parameters), None
        if not torch.cuda.is_available():
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM):
                self._forget()
                step()
        torch.cuda.current_stream().wait_stream(side)
        self._forget()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._found = step()
        self._gradients = [p.grad for p in self._parameters]

    def __call__(self) -> Sequence[Tensor]:
        if self._graph is None:
            self._forget()
            return self._step()
        self._graph.replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient  # of this graph, where several share the parameters
        return self._found

    def _forget(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None
