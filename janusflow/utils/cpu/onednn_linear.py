"""Linear layers whose float32 products on a CPU are computed by oneDNN.

torch multiplies float32 matrices with MKL, which uses its AVX-512 kernels on Intel processors only.
On an AMD EPYC oneDNN, which torch also contains, is twice as fast (docs/speed.md). The results
differ from MKL's by rounding. oneDNN compiles a kernel for every new shape, in about 16 ms, so
small products use it only where the caller says that their shapes repeat (`repeating`).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from janusflow.utils.forward_mode import forward_mode

# multiplications from which on oneDNN gains more than it costs, in a shape that comes
ONCE = 1 << 31  # 45 ms of one core
AGAIN = 1 << 20

_smallest: ContextVar[int] = ContextVar("smallest product for oneDNN", default=ONCE)


@cache
def onednn_is_faster() -> bool:
    """Returns whether to use oneDNN: on processors with AVX-512 that are not Intel's.

    The environment variable JANUSFLOW_ONEDNN (0 or 1) overrides this. It is a rule and not a
    measurement, so that a machine always computes the same bits.
    """
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, _NAME):
        return False
    if (asked := os.environ.get("JANUSFLOW_ONEDNN")) is not None:
        if asked not in ("0", "1"):
            raise ValueError(f"JANUSFLOW_ONEDNN is {asked!r}; expected 0 or 1")
        return asked == "1"
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and _vendor() != "GenuineIntel"


@contextmanager
def repeating() -> Iterator[None]:
    """A context or decorator for products whose shapes repeat, so oneDNN may compile them."""
    token = _smallest.set(AGAIN)
    try:
        yield
    finally:
        _smallest.reset(token)


def use_onednn(module: nn.Module, undo: bool = False) -> nn.Module:
    """Makes every plain nn.Linear in the module multiply through oneDNN where that is faster, or
    undoes it.

    Names, weights and gradients are unchanged. Returns the module.
    """
    before, after = (Linear, nn.Linear) if undo else (nn.Linear, Linear)
    for part in module.modules():
        if type(part) is before:
            part.__class__ = after
    return module


class Linear(nn.Linear):
    """x W^T + b, (..., in) -> (..., out)."""

    def forward(self, x: Tensor) -> Tensor:
        if not _suits(x, self.weight):
            return nn.functional.linear(x, self.weight, self.bias)
        if torch.is_grad_enabled():
            return _Product.apply(x, self.weight, self.bias)
        return _product(x, self.weight, self.bias)


_NAME = "_linear_pointwise"


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if torch.compiler.is_compiling():
        return _closed(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@torch.library.custom_op("janusflow::linear", mutates_args=())
def _closed(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`_product` for torch.compile, which accepts oneDNN's own only with constant weights."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@_closed.register_fake
def _(x: Tensor, weight: Tensor, _bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


class _Product(torch.autograd.Function):
    """`_product` with gradients, which are products again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _product(x, weight, bias)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])
        return (
            _product(grad, weight.t()) if wants_x else None,
            _product(rows.t(), x.reshape(len(rows), -1).t()) if wants_weight else None,
            rows.sum(0) if wants_bias else None,
        )


def _suits(x: Tensor, weight: Tensor) -> bool:
    return (
        x.dtype is weight.dtype is torch.float32
        and x.device.type == weight.device.type == "cpu"
        and x.numel() * weight.shape[0] >= _least()
        and type(x) is Tensor
        and type(weight) in (Tensor, nn.Parameter)
        and _faster()
        and not torch.is_autocast_enabled("cpu")
        and not forward_mode()
    )


@torch.compiler.assume_constant_result  # torch.compile does not look inside
def _faster() -> bool:
    return onednn_is_faster()


def _least() -> int:
    """The smallest product for oneDNN, smaller in a compiled graph, whose shapes repeat."""
    return AGAIN if torch.compiler.is_compiling() else _smallest.get()


def _vendor() -> str:
    """Returns the processor's vendor as Linux reports it, or ""."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":")[1].strip() for line in lines if line.startswith("vendor_id")), "")
