"""Alignment: what is compared, what learns from it, and what does not."""

from dataclasses import dataclass, replace

import pytest
import torch

from janusflow.models import attention_capture
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.training import losses
from janusflow.training.alignment import repa
from janusflow.training.alignment.repa import PRESETS, Aligner, Alignment

PLACES = torch.arange(3)[:, None] * 37 + torch.arange(1, 37)  # of image tokens after the time's


@dataclass
class Counting:
    """A teacher that counts its calls."""

    features: torch.Tensor
    calls: int = 0

    @property
    def width(self):
        return self.features.shape[-1]

    def __call__(self, _view):
        self.calls += 1
        return self.features


def test_the_presets_are_what_the_papers_say():
    assert PRESETS["janusflow"] == Alignment(
        teacher="own",
        tap=0.25,
        projector="mlp",
        normalisation="none",
        similarity="cosine",
        weight=1,
    )
    assert PRESETS["janusflow"].block(24) == 6
    assert (PRESETS["repa"].block(28), PRESETS["repa"].weight) == (8, 0.5)
    irepa = PRESETS["irepa"]
    assert (irepa.projector, irepa.normalisation, irepa.weight) == ("conv", "zscore", 0.5)
    assert irepa.block(28) == 8
    haste = PRESETS["haste"]
    assert (haste.block(28), [*haste.blocks(28)]) == (8, [5, 6, 7, 8])
    assert (haste.weight, haste.attention, haste.schedule) == (0.5, 0.5, "stop")
    sra = PRESETS["sra"]
    assert (sra.block(12), repa.block(sra.teacher_tap, 12), sra.cleaner) == (4, 8, 0.2)
    assert PRESETS["contrastive"].weight == 0.05


def test_schedules_are_constant_fall_or_stop():
    def weights(**kw):
        protocol = Alignment(weight=2.0, **kw)
        return [protocol.strength(step) for step in (0, 5, 9, 10, 99)]

    assert weights() == [2, 2, 2, 2, 2]
    assert weights(schedule="linear", until=10) == pytest.approx([2, 1, 0.2, 0, 0])
    assert weights(schedule="stop", until=10) == [2, 2, 2, 0, 0]


def test_a_tap_is_a_block_or_a_share_of_the_depth():
    assert [repa.block(tap, 6) for tap in (1, 6, 0.25, 0.01, 1.0)] == [1, 6, 2, 1, 6]
    for tap in (0, 7, 1.2, -0.1, True, "2"):
        with pytest.raises(ValueError, match="tap"):
            repa.block(tap, 6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "magic"},
        {"projector": "rnn"},
        {"normalisation": "l2"},
        {"similarity": "dot"},
        {"schedule": "cosine"},
        {"time_weight": "x"},
        {"weight": -1},
        {"weight": float("nan")},
        {"cleaner": 2},
        {"schedule": "stop"},
        {"schedule": "linear", "until": 0},
        {"until": 5},
        {"attention": -1},
        {"attention": 1.0, "weight": 0},
        {"attention": 1.0, "kind": "dispersive"},
    ],
)
def test_a_protocol_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match="alignment"):
        Alignment(**wrong)


def test_presets_are_changed_by_field_and_unknown_ones_refused():
    changed = repa.preset("irepa", tap=2)
    assert changed == replace(PRESETS["irepa"], tap=2)
    with pytest.raises(ValueError, match="choose one of janusflow"):
        repa.preset("repa2")
    with pytest.raises(ValueError, match="no field 'depth'"):
        repa.preset("repa", depth=2)


def test_alignment_of_equal_features_is_zero_and_the_teacher_gets_no_gradient():
    hidden = torch.randn(2, 9, 8, requires_grad=True)
    t = torch.rand(2)
    for similarity in repa.SIMILARITIES:
        protocol = Alignment(similarity=similarity)
        teacher = hidden.detach().clone().requires_grad_()
        assert repa.compare(protocol, hidden, teacher, t).abs().max() < 1e-6
        repa.compare(protocol, hidden, teacher.flip(1), t).sum().backward()
        assert teacher.grad is None and hidden.grad.any()
    longer = repa.compare(Alignment(), hidden, 3 * hidden, t)
    assert longer.abs().max() < 1e-6  # the cosine does not see lengths


def test_zscored_features_have_mean_zero_and_deviation_one_over_the_tokens():
    z = repa.zscored(5 + 3 * torch.randn(2, 16, 4))
    assert z.mean(1).abs().max() < 1e-5
    assert torch.allclose(z.square().mean(1), torch.ones(2, 4), atol=1e-4)
    hidden, teacher = torch.randn(2, 2, 16, 4)
    protocol = Alignment(normalisation="zscore")
    moved = teacher * torch.tensor([1.0, 2, 3, 4]) + torch.tensor([5.0, -6, 7, -8])
    ours, other = (repa.compare(protocol, hidden, x, torch.rand(2)) for x in (teacher, moved))
    assert torch.allclose(ours, other, atol=1e-4)


def test_teachers_with_another_grid_are_resampled_to_the_students():
    side = torch.linspace(0, 1, 12)
    plane = torch.stack(torch.meshgrid(side, side, indexing="ij"), dim=-1).reshape(1, 144, 2)
    small = repa.resampled(plane, 36).view(6, 6, 2)
    inner = small[1:-1, 1:-1]  # a linear image stays linear away from the border
    centres = (torch.arange(6) * 2 + 0.5) / 11
    assert torch.allclose(inner[..., 0], centres[1:-1, None].expand(4, 4), atol=1e-5)
    assert torch.allclose(inner[..., 1], centres[None, 1:-1].expand(4, 4), atol=1e-5)
    assert repa.resampled(plane, 225).shape == (1, 225, 2)
    assert repa.resampled(plane, 144) is plane
    with pytest.raises(ValueError, match="10 tokens form no square"):
        repa.resampled(plane, 10)


@pytest.mark.parametrize("kind", repa.PROJECTORS)
def test_every_projector_maps_tokens_to_the_teachers_width_and_learns(kind):
    head = repa.projector(kind, 12, 7)
    out = head(torch.randn(2, 16, 12))
    out.square().sum().backward()
    assert out.shape == (2, 16, 7) and all(p.grad.any() for p in head.parameters())


def test_the_convolution_sees_the_neighbours_on_the_grid_and_no_others():
    head, x = repa.projector("conv", 3, 4), torch.randn(1, 25, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(head(x)[0, 12].sum(), x)
    assert grad[0].any(1).nonzero().flatten().tolist() == [6, 7, 8, 11, 12, 13, 16, 17, 18]


def test_weights_by_time_act_on_each_picture():
    hidden, teacher = torch.randn(2, 3, 9, 4)
    t = torch.tensor([0.1, 0.5, 0.9])
    plain = repa.compare(Alignment(), hidden, teacher, t)
    early = repa.compare(Alignment(time_weight="noise_side"), hidden, teacher, t)
    assert torch.allclose(early, plain * 2 * (1 - t))


def test_a_stopped_schedule_no_longer_runs_the_teacher(view):
    teacher = Counting(torch.randn(3, 36, 5))
    aligner = Aligner(Alignment(schedule="stop", until=2), 8, 4, teacher)
    hidden, v = torch.randn(3, 36, 8), view.noise
    names = [list(aligner.losses(step, view, v, hidden)) for step in range(5)]
    weights = Alignment(attention=0.5, weight=2, schedule="stop", until=2).weights
    assert [weights(s)["attention"] for s in (1, 2)] == [0.5, 0]
    assert names == [["alignment"], ["alignment"], [], [], []] and teacher.calls == 2
    assert [aligner.needs_hidden(step) for step in (1, 2)] == [True, False]
    silent = Aligner(Alignment(weight=0.0), 8, 4, teacher)
    assert not silent.losses(0, view, v, hidden) and teacher.calls == 2


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_gives_one_loss_a_sample_and_trains_all_it_should(name, model, view):
    changes = {"tap": 2} if name == "repa" else {}
    protocol = repa.preset(name, **changes)
    model.requires_grad_(True).zero_grad()
    model.vision_und_enc_model.requires_grad_(False)
    average = JanusFlowModel(model.config)
    average.load_state_dict(model.state_dict())
    aligner = repa.build(protocol, model, average)
    prompt = model.encode_prompt(torch.tensor([[1, 2, 3]]))
    x = losses.interpolate(view.noise, view.data, view.t)
    with attention_capture.attending(model.language_model, aligner.blocks) as looked:
        v, hidden = model.velocity(x, view.t, prompt, return_hidden=aligner.tap)
    heads = looked.at(PLACES) if aligner.blocks else None
    parts = aligner.losses(0, view, v, hidden, heads)
    assert len(parts) == 1 + (name == "haste")
    assert all(values.shape == (3,) and torch.isfinite(values).all() for values in parts.values())
    sum(values.mean() for values in parts.values()).backward()
    assert all(p.grad is not None and p.grad.any() for p in aligner.parameters())
    assert all(p.grad is None for p in average.parameters())
    assert all(p.grad is None for p in model.vision_und_enc_model.parameters())
    blocks = [
        any(p.grad is not None and p.grad.any() for p in layer.parameters())
        for layer in model.language_model.model.layers
    ]
    last = 4 if protocol.kind == "contrastive" else aligner.tap
    assert blocks == [i < last for i in range(4)]


def test_a_teacher_is_neither_trained_nor_saved_with_the_projector(model):
    aligner = repa.build(PRESETS["janusflow"], model)
    width = model.config.language_config.hidden_size
    expected = repa.projector("mlp", width, model.config.vision.width).state_dict()
    saved = {k.removeprefix("projector."): v.shape for k, v in aligner.state_dict().items()}
    assert saved == {k: v.shape for k, v in expected.items()}
    with pytest.raises(ValueError, match="needs its teacher 'own'"):
        Aligner(Alignment(), 8, 4)


def test_the_cosine_of_gradients_is_that_of_a_plain_computation():
    hidden = torch.randn(2, 4, 3, requires_grad=True)
    a, b = torch.randn(2, 2, 4, 3)
    first, second = (hidden * a).sum((1, 2)), (hidden * b).sum((1, 2))
    expected = (a * b).sum() / a.norm() / b.norm()
    assert torch.allclose(repa.gradient_cosine(first, second, hidden), expected)
    assert repa.gradient_cosine(first, -first, hidden) == pytest.approx(-1)
    with pytest.raises(ValueError, match="pass the block's own output"):
        repa.gradient_cosine(first, second, hidden[:, 1:])
    (first + second).sum().backward()  # the graph is still there


def test_both_losses_of_a_step_have_a_gradient_at_the_watched_block(model, view):
    """The slice of image tokens has none from the flow: the later blocks do not read it."""
    aligner = repa.build(PRESETS["janusflow"], model.requires_grad_(True))
    prompt = model.encode_prompt(torch.tensor([[1, 2, 3]]))
    x = losses.interpolate(view.noise, view.data, view.t)
    with repa.watching(model, aligner.tap) as states:
        v, hidden = model.velocity(x, view.t, prompt, return_hidden=aligner.tap)
    (state,) = states
    assert torch.equal(state[:, 1:], hidden)
    flow = losses.flow(v, view.noise, view.data)
    aligned = aligner.losses(0, view, v, hidden)["alignment"]
    a, b = (torch.autograd.grad(x.sum(), state, retain_graph=True)[0] for x in (flow, aligned))
    expected = (a * b).sum() / a.norm() / b.norm()
    cosine = repa.gradient_cosine(flow, aligned, state)
    assert torch.allclose(cosine, expected) and 0 < abs(cosine) < 1
    with pytest.raises(ValueError, match="pass the block's own output"):
        repa.gradient_cosine(flow, aligned, hidden)
    model.velocity(x, view.t, prompt)
    assert len(states) == 1  # what comes later is not watched
