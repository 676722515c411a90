"""Optimizers by name: what each moves, and that its state survives."""

import copy

import pytest
import torch
from torch import nn

from janusflow.training.optimizers import OPTIMIZERS


def network() -> nn.Module:
    torch.manual_seed(0)
    parts = {
        "embed_tokens": nn.Embedding(5, 8),
        "inner": nn.Linear(8, 8),
        "lm_head": nn.Linear(8, 5),
    }
    return nn.ModuleDict(parts)


def optimizer(name: str, model: nn.Module) -> torch.optim.Optimizer:
    return OPTIMIZERS[name](model.named_parameters(), 1e-2, (0.9, 0.95), 0.0)


def advance(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    tokens = torch.arange(5)
    for _ in range(steps):
        logits = model["lm_head"](model["inner"](model["embed_tokens"](tokens)))
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, tokens).backward()
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_parameter_is_moved_once(name):
    model = network()
    before = copy.deepcopy(model.state_dict())
    moved = optimizer(name, model)
    held = [p for group in moved.param_groups for p in group["params"]]
    assert sorted(map(id, held)) == sorted(map(id, model.parameters()))
    advance(model, moved, 1)
    assert not any(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_restored_state_goes_on_in_the_same_bits(name):
    model = network()
    first = optimizer(name, model)
    advance(model, first, 3)
    copied = copy.deepcopy(model)
    second = optimizer(name, copied)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    advance(model, first, 3)
    advance(copied, second, 3)
    assert all(map(torch.equal, model.parameters(), copied.parameters()))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_rate_set_in_the_groups_is_the_rate_of_the_step(name):
    model = network()
    still = optimizer(name, model)
    before = copy.deepcopy(model.state_dict())
    for group in still.param_groups:
        group["lr"] = 0.0
    advance(model, still, 2)
    assert all(map(torch.equal, before.values(), model.state_dict().values()))


def test_muon_steps_a_matrix_in_all_its_directions_alike():
    """Its update is nearly orthogonal, where AdamW's follows the few large directions."""
    model = network()
    before = model["inner"].weight.detach().clone()
    advance(model, optimizer("muon", model), 1)
    values = torch.linalg.svdvals(model["inner"].weight.detach() - before)[:4]  # rank of 5 tokens
    assert values.max() / values.min() < 2
