"""Muon: the momentum of a matrix, orthogonalised.

`torch.optim.Muon` orthogonalises in bfloat16 on every device. On a CPU without such instructions
that can take longer than the rest of a small model's training step; this one uses float32 there.
"""

from __future__ import annotations

import torch
from torch import Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)  # of Jordan et al.; singular values end between .5 and 1.5
ROUNDS = 5


def orthogonalized(matrix: Tensor) -> Tensor:
    """Returns U W^T of a matrix U S W^T, about: S within .5 to 1.5, by Newton-Schulz iterations.

    They take bfloat16 on an accelerator, as published, and float32 on a CPU.
    """
    a, b, c = QUINTIC
    x = matrix.float() if matrix.device.type == "cpu" else matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.mT if tall else x
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Adds -lr 0.2 sqrt(larger side) orthogonalized(momentum) to matrices, a step of AdamW's size.

    Jordan et al. 2024 (Muon, with Nesterov's momentum); Liu et al. 2025, arXiv 2502.16982 (scale).
    """

    def __init__(self, params, lr: float, weight_decay: float = 0.0, momentum: float = 0.95):
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, momentum=momentum))

    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, group["lr"], group["weight_decay"], group["momentum"])
        return loss

    def _move(self, p: Tensor, lr: float, weight_decay: float, momentum: float) -> None:
        state = self.state[p]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(p, memory_format=torch.preserve_format)
        buffer = state["momentum_buffer"].lerp_(p.grad, 1 - momentum)
        update = orthogonalized(p.grad.lerp(buffer, momentum))
        p.mul_(1 - lr * weight_decay)
        p.add_(update, alpha=-lr * 0.2 * max(p.shape) ** 0.5)
