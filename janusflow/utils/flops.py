"""Model FLOPs utilisation: the operations of a training step relative to the machine's peak."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from janusflow.utils.cpu.onednn_linear import repeating, use_onednn

SECONDS = 0.2  # of measuring the peak


class Counting(TorchDispatchMode):
    """A mode that counts the floating-point operations of matrix products, convolutions and
    attention by torch's formulas.

    Forward, backward and recomputed operations count. Attention counts in full, although half of it
    is masked. `total` is the sum.
    """

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket) or ON_CPU.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def _attention(query, key, value, *_, **__) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward(grad, query, key, value, *_, **__) -> int:
    return sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape)


def _linear(x, weight, *_, **__) -> int:
    return 2 * x.numel() * weight.shape[0]


ON_CPU = {  # which torch's table lacks
    torch.ops.mkldnn._linear_pointwise: _linear,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


@lru_cache
def peak(device: torch.device, dtype: torch.dtype, threads: int) -> float:  # noqa: ARG001
    """Measures the machine's peak in operations per second: the fastest of several large matrix
    products.

    `threads` is torch's number of CPU threads and part of the cache key.
    """
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    product = use_onednn(torch.nn.Linear(side, side, bias=False, device=device, dtype=dtype))
    ways = (lambda: a @ b, lambda: product(a))
    best, until = float("inf"), time.perf_counter() + SECONDS
    with torch.no_grad(), repeating():
        while time.perf_counter() < until or best == float("inf"):
            for way in ways:
                _wait(device)
                started = time.perf_counter()
                way()
                _wait(device)
                best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@dataclass
class Meter:
    """Counts a process's operations per token in one step; holds the machine's peak."""

    per_token: float
    peak: float

    @classmethod
    def of(cls, trainer, stop: bool = False) -> tuple[Meter, dict]:
        """Runs one training step under the counter and returns the meter and the step's result."""
        with Counting() as counted:
            found = trainer.step(stop=stop)
        accelerator = trainer.accelerator
        dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
        most = peak(accelerator.device, dtype, torch.get_num_threads())
        return cls(counted.total / max(1, found["tokens"]), most), found

    def fraction(self, tokens_per_s: float) -> float:
        """Returns the used fraction of the peak at this rate, in the batch's tokens per second."""
        return self.per_token * tokens_per_s / self.peak
