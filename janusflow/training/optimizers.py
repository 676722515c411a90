"""Optimizers by name: AdamW, and Muon for the matrices inside the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

Named = Iterable[tuple[str, nn.Parameter]]
OUTSIDE = ("embed_tokens", "lm_head", "beg_of_und_embed", "pos_embed")  # rows are looked up


class Together(torch.optim.Optimizer):
    """Several optimizers as one: their groups one after the other, their states numbered on."""

    def __init__(self, *parts: torch.optim.Optimizer):
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.param_groups = [group for part in parts for group in part.param_groups]

    def step(self, closure: Callable | None = None):
        loss = closure() if closure else None
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict:
        states, groups, first = {}, [], 0
        for saved in (part.state_dict() for part in self.parts):
            states |= {first + index: value for index, value in saved["state"].items()}
            groups += [
                g | {"params": [first + i for i in g["params"]]} for g in saved["param_groups"]
            ]
            first += sum(len(g["params"]) for g in saved["param_groups"])
        return {"state": states, "param_groups": groups}

    def load_state_dict(self, saved: dict) -> None:
        first = 0
        for part in self.parts:
            own = part.state_dict()
            count = sum(len(g["params"]) for g in own["param_groups"])
            states = {
                i: saved["state"][first + i] for i in range(count) if first + i in saved["state"]
            }
            part.load_state_dict({"state": states, "param_groups": own["param_groups"]})
            first += count
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def adamw(named: Named, lr: float, betas: tuple[float, float], weight_decay: float):
    parameters = [p for _, p in named]
    return torch.optim.AdamW(parameters, lr=lr, betas=betas, weight_decay=weight_decay)


def muon(named: Named, lr: float, betas: tuple[float, float], weight_decay: float):
    """Orthogonalised momentum for matrices, with AdamW's step length, and AdamW for the rest.

    Jordan et al. 2024 (Muon); Liu et al. 2025, arXiv 2502.16982, for the length.
    """
    named = list(named)
    inner = [p for name, p in named if p.ndim == 2 and not any(o in name for o in OUTSIDE)]
    ids = {id(p) for p in inner}
    rest = [(name, p) for name, p in named if id(p) not in ids]
    matrices = torch.optim.Muon(
        inner, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return Together(matrices, adamw(rest, lr, betas, weight_decay))


OPTIMIZERS = {"adamw": adamw, "muon": muon}
