"""Optimizers by name, with parameter groups for weight decay and learning rates."""

import importlib
from collections.abc import Callable, Iterable

import torch
from torch import nn

from janusflow.training.muon import Muon

Named = Iterable[tuple[str, nn.Parameter]]
Rates = Callable[[str], float]
OPTIMIZERS: dict[str, Callable] = {}
EMBEDDINGS = ("embed_tokens", "beg_of_und_embed", "pos_embed", "latent")
OUTSIDE = ("embed_tokens", "lm_head", "beg_of_und_embed", "pos_embed")  # rows are looked up


class Together(torch.optim.Optimizer):
    """Several optimizers as one; groups and states are numbered consecutively."""

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


def groups(named: Named, weight_decay: float, rate_of: Rates = lambda _: 1.0) -> list[dict]:
    """Returns groups of parameters that share a weight decay and a learning rate.

    Norms, biases and embeddings do not decay ("decays" is False); "rate" multiplies the scheduled
    learning rate.
    """
    found: dict[tuple[bool, float], dict] = {}
    for name, p in named:
        key = decays(name, p), rate_of(name)
        own = found.setdefault(key, {"params": [], "decays": key[0], "rate": key[1]})
        own["params"].append(p)
    return [own | {"weight_decay": weight_decay * own["decays"]} for own in found.values()]


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Returns whether a parameter gets weight decay: matrices that multiply activations do."""
    return parameter.ndim >= 2 and not any(word in name for word in EMBEDDINGS)


def optimizer(make: Callable) -> Callable:
    """A decorator that registers an optimizer's factory under the function's name, for
    `training.optimizer`.

    The function is (named, lr, betas, weight_decay, rate_of) -> torch.optim.Optimizer, with the
    groups of `groups`.
    """
    OPTIMIZERS[make.__name__] = make
    return make


@optimizer
def adamw(named: Named, lr: float, betas, weight_decay: float, rate_of: Rates = lambda _: 1.0):
    """AdamW. Loshchilov and Hutter 2019, arXiv 1711.05101."""
    return torch.optim.AdamW(groups(named, weight_decay, rate_of), lr=lr, betas=betas)


@optimizer
def muon(named: Named, lr: float, betas, weight_decay: float, rate_of: Rates = lambda _: 1.0):
    """Orthogonalised momentum for matrices, scaled to AdamW's step size, and AdamW for other
    parameters.

    Jordan et al. 2024 (Muon); Liu et al. 2025, arXiv 2502.16982, for the scale.
    """
    named = list(named)
    inner = [(n, p) for n, p in named if p.ndim == 2 and not any(o in n for o in OUTSIDE)]
    ids = {id(p) for _, p in inner}
    rest = [(name, p) for name, p in named if id(p) not in ids]
    matrices = Muon(groups(inner, weight_decay, rate_of), lr)
    return Together(matrices, adamw(rest, lr, betas, weight_decay, rate_of)) if rest else matrices


@optimizer
def adamw_8bit(named: Named, lr: float, betas, weight_decay: float, rate_of: Rates = lambda _: 1.0):
    """AdamW with moments of one byte a number (Dettmers et al. 2022, arXiv 2110.02861)."""
    library = _library("bitsandbytes", "adamw_8bit")
    return library.optim.AdamW8bit(groups(named, weight_decay, rate_of), lr=lr, betas=betas)


@optimizer
def adamw_schedule_free(
    named: Named, lr: float, betas, weight_decay: float, rate_of: Rates = lambda _: 1.0
):
    """AdamW whose weight averaging replaces a schedule (Defazio et al. 2024, arXiv 2405.15682).

    Use it with training.schedule=constant.
    """
    library = _library("schedulefree", "adamw_schedule_free")
    made = library.AdamWScheduleFree(groups(named, weight_decay, rate_of), lr=lr, betas=betas)
    made.train()
    return made


def _library(name: str, asked: str):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        needs = f"training.optimizer={asked} needs {name}: pip install {name}, or choose adamw"
        raise ModuleNotFoundError(needs, name=name) from error
