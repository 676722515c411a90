"""Products of a large matrix with exactly two rows, at the speed at which the matrix is read.

BLAS takes two rows as a small matrix product and reads the weights at a fraction of the memory's
speed. Where oneDNN is the faster one, its own layout of the weights is read instead, made at the
first step of a picture and dropped after the last (so a second copy of them exists meanwhile):
1.7 against 9.3 ms for 5,632 x 2,048 in float32 on one core of an EPYC (AVX-512). Elsewhere the
product is turned round, (W x^T)^T: 6.5 ms. One picture with guidance is two rows, so its hundreds
of steps gain.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from janusflow.utils.cpu.onednn_linear import onednn_is_faster
from janusflow.utils.forward_mode import forward_mode

LARGE = 2**22  # elements of a matrix from which on reading it is what takes the time


class TwoRows(TorchFunctionMode):
    """While active, `linear` of two rows with a large float32 matrix on the CPU goes these ways."""

    def __init__(self):
        super().__init__()
        self.packed: dict[int, tuple[Tensor, Tensor]] = {}  # with the weight, so that ids hold

    def __torch_function__(self, func, _types, args=(), kwargs=None):
        if func is torch.nn.functional.linear and not kwargs and _suits(*args):
            reads = onednn_is_faster() and not forward_mode()
            return self._read(*args) if reads else _turned(*args)
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


def _turned(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    out = torch.mm(weight, x.reshape(2, -1).T).T
    out = out if bias is None else out + bias
    return out.reshape(*x.shape[:-1], -1)


def two_rows(model: torch.nn.Module, rows: int):
    """The mode where it helps, otherwise nothing."""
    weight = model.model.generation_head.vision_head.weight
    suits = rows == 2 and weight.device.type == "cpu" and weight.dtype == torch.float32
    return TwoRows() if suits and weight.numel() >= LARGE else nullcontext()
