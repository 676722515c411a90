"""Products of a large matrix with exactly two rows at the speed of reading the matrix.

One image with guidance is two rows. BLAS treats them as a small matrix product and reads the
weights at a fraction of the memory bandwidth. Where oneDNN is faster, its own weight layout is used
instead; it is made at the first step of an image and dropped after the last, so a second copy of
the weights exists meanwhile. At the 1B widths (2 blocks, 64 tokens, float32, one core of an EPYC
with AVX-512, torch 2.14.1) an image took 1.80 s instead of 3.88. `JANUSFLOW_ONEDNN=0` turns it off.
"""

from contextlib import nullcontext

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from janusflow.utils.cpu.onednn_linear import onednn_is_faster
from janusflow.utils.forward_mode import forward_mode

LARGE = 2**22  # elements of a matrix from which on reading it is what takes the time


class TwoRows(TorchFunctionMode):
    """A function mode: `linear` of two rows and a large float32 matrix uses oneDNN's layout."""

    def __init__(self):
        super().__init__()
        self.packed: dict[int, tuple[Tensor, Tensor]] = {}  # with the weight, so that ids hold

    def __torch_function__(self, func, _types, args=(), kwargs=None):
        if func is torch.nn.functional.linear and not kwargs and _suits(*args):
            if not forward_mode():  # the packed product has no derivative along a direction
                return self._read(*args)
        return func(*args, **(kwargs or {}))

    def _read(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if id(weight) not in self.packed:
            packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 2)
            self.packed[id(weight)] = (weight, packed)
        packed = self.packed[id(weight)][1]
        rows = x.reshape(2, -1).contiguous()
        out = torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")
        return out.reshape(*x.shape[:-1], -1)


def _suits(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:  # noqa: ARG001
    return weight.numel() >= LARGE and x.numel() == 2 * x.shape[-1]


def two_rows(model: torch.nn.Module, rows: int):
    """Returns the mode `TwoRows` where it helps, and a context that does nothing elsewhere."""
    weight = model.model.generation_head.vision_head.weight
    suits = rows == 2 and weight.device.type == "cpu" and weight.dtype == torch.float32
    suits = suits and weight.numel() >= LARGE and onednn_is_faster()
    return TwoRows() if suits else nullcontext()
