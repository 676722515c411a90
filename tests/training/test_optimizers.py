"""Optimizers by name: what each moves, and that its state survives."""

import copy

import pytest
import torch
from torch import nn

from janusflow.training import ema
from janusflow.training.config import changed, of_stage
from janusflow.training.muon import Muon
from janusflow.training.optimizers import OPTIMIZERS, groups


def network() -> nn.Module:
    torch.manual_seed(0)
    parts = {
        "embed_tokens": nn.Embedding(5, 8),
        "inner": nn.Linear(8, 8),
        "lm_head": nn.Linear(8, 5),
    }
    return nn.ModuleDict(parts)


@pytest.fixture(autouse=True)
def installed(request):
    """What is not installed is left out."""
    name = getattr(request.node, "callspec", None) and request.node.callspec.params.get("name")
    libraries = {"adamw_8bit": "bitsandbytes", "adamw_schedule_free": "schedulefree"}
    if name in libraries:
        pytest.importorskip(libraries[name])


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


def test_norms_biases_and_embeddings_do_not_decay():
    model = network()
    model["norm"] = nn.LayerNorm(8)
    own = groups(model.named_parameters(), 0.1)
    names = {id(p): n for n, p in model.named_parameters()}
    decayed = {names[id(p)] for g in own if g["weight_decay"] for p in g["params"]}
    assert decayed == {"inner.weight", "lm_head.weight"}


def test_parts_have_rates_of_their_own():
    stage = changed(of_stage("3"), {"training.rates": {"vision_encoder": 0.1, "projector": 2}})
    rate = stage.training.rate_of
    assert rate("model.vision_und_enc_model.x") == 0.1 and rate("projector.0.weight") == 2
    assert rate("model.language_model.lm_head.weight") == 1
    with pytest.raises(ValueError, match="rates holds 'head'"):
        changed(of_stage("3"), {"training.rates": {"head": 0.1}})


@pytest.mark.parametrize("asked", ["adamw_8bit", "adamw_schedule_free"])
def test_an_optimizer_of_a_library_that_is_not_there_is_asked_for(monkeypatch, asked):
    import importlib

    def missing(library):
        raise ImportError(library)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match=f"{asked} needs .*: pip install"):
        optimizer(asked, network())


class Counting(torch.optim.SGD):
    """An optimizer that keeps numbers, of its parameters and of itself."""

    def step(self, closure=None):
        for group in self.param_groups:
            group["k"] = group.get("k", 0) + 1
            for p in group["params"]:
                self.state[p]["seen"] = self.state[p].get("seen", 0) + 1
                self.state[p]["scale"] = 0.5
        return super().step(closure)


def test_numbers_in_an_optimizers_state_are_kept():
    def state():
        model = network()
        made = Counting(model.parameters(), lr=0.1)
        names = [name for name, _ in model.named_parameters()]
        averages = {n: p.detach().clone() for n, p in model.named_parameters()}
        return ema.State(model, made, names, averages)

    first, second = state(), state()
    advance(first.module, first.optimizer, 3)
    ema.load(second, {n: x.clone() for n, x in ema.tensors(first).items()}, 3)
    assert second.optimizer.state_dict() == first.optimizer.state_dict()
    assert second.optimizer.param_groups[0]["k"] == 3 and second.step == 3


def test_muon_takes_the_steps_of_torch_which_rounds_to_bfloat16():
    torch.manual_seed(0)
    ours, theirs = (nn.Linear(24, 40, bias=False) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    start = ours.weight.detach().clone()
    made = Muon(ours.parameters(), lr=0.1, weight_decay=0.1)
    known = torch.optim.Muon(
        theirs.parameters(), lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(3):
        x = torch.randn(16, 24)
        for layer, way in ((ours, made), (theirs, known)):
            way.zero_grad()
            layer(x).square().sum().backward()
            way.step()
    error = (ours.weight - theirs.weight).norm() / (theirs.weight - start).norm()
    assert error < 0.06
