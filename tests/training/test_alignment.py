"""Alignment: what is compared, what learns from it, and what does not."""

import itertools
from dataclasses import dataclass, replace

import pytest
import timm
import torch
from safetensors.torch import save_file

from janusflow.models import attention_capture
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.scenes.patches import pixels
from janusflow.scenes.shapes import render_batch
from janusflow.scenes.world import COLORS, SHAPES, scene
from janusflow.training import config, losses
from janusflow.training.alignment import repa, teachers
from janusflow.training.alignment.repa import PRESETS, Aligner, Alignment
from janusflow.training.alignment.similarity import by_block, cknna
from janusflow.training.alignment.teachers import View
from janusflow.training.recipes import RECIPES

TIMM = "vit_tiny_patch16_224"
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


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = JanusFlowModel(RECIPES["scenes-smoke"].config(vocab_size=20))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.08)
    return model


@pytest.fixture(scope="module")
def view():
    objects = [scene("test", i).objects for i in range(3)]
    noise, data = torch.randn(2, 3, 16, 12, 12, generator=torch.Generator().manual_seed(0))
    return View(
        t=torch.tensor([0.1, 0.5, 0.95]),
        noise=noise,
        data=data,
        pixel_values=pixels(render_batch(objects)),
        objects=objects,
        uniform=torch.tensor([0.0, 0.5, 0.9]),
        features=torch.randn(3, 36, 7),
        hidden_of=_hidden_of,
    )


def _hidden_of(model, x, t, block):
    prompt = model.encode_prompt(torch.tensor([[1, 2, 3]]))
    return model.velocity(x, t, prompt, return_hidden=block)[1]


# The protocol


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


# Comparing


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


# At work


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
    with pytest.raises(ValueError, match="take the block's own output"):
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
    with pytest.raises(ValueError, match="take the block's own output"):
        repa.gradient_cosine(flow, aligned, hidden)
    model.velocity(x, view.t, prompt)
    assert len(states) == 1  # what comes later is not watched


# Attention maps


def test_attention_is_compared_as_in_a_plain_computation():
    """Head by head and query by query, over the keys up to the query."""
    student, teacher = torch.randn(2, 2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(2)
    for b, h, i in itertools.product(range(2), range(2), range(5)):
        ours, theirs = (x[b, h, i, : i + 1].softmax(0) for x in (student, teacher))
        expected[b] += (theirs * (theirs / ours).log()).sum() / (2 * 5)
    assert torch.allclose(losses.attention(student[:, :2], teacher), expected, atol=1e-6)


def test_equal_attention_costs_nothing_and_the_teacher_gets_no_gradient():
    student = torch.randn(2, 3, 4, 4, requires_grad=True)
    teacher = student.detach().clone().requires_grad_()
    assert losses.attention(student, teacher).abs().max() < 1e-6
    moved = teacher + torch.randn(2, 3, 4, 1)  # a softmax does not see what all keys share
    assert losses.attention(student, moved).abs().max() < 1e-5
    losses.attention(student, teacher.flip(-1)).sum().backward()
    assert teacher.grad is None and student.grad.any()
    assert not student.grad.triu(1).any()  # what a causal student does not see


def test_the_students_attention_is_what_its_blocks_compute(model, view):
    """Against transformers' own maps, renormalised over the image tokens."""
    prompt = model.encode_prompt(torch.tensor([[1, 2, 3]]))
    with attention_capture.attending(model.language_model, [2, 3]) as looked:
        model.velocity(view.data, view.t, prompt)
    eager = JanusFlowModel(model.config)
    eager.load_state_dict(model.state_dict())
    eager.language_model.set_attn_implementation("eager")
    seen = []
    for k in (1, 2):
        layer = eager.language_model.model.layers[k].self_attn
        layer.register_forward_hook(lambda _layer, _inputs, out: seen.append(out[1]))
    prompt = eager.encode_prompt(torch.tensor([[1, 2, 3]]))
    seen.clear()
    eager.velocity(view.data, view.t, prompt)
    for heads, full in zip(looked.at(PLACES), seen, strict=True):
        own = full[:, :, -36:, -36:]
        unseen = torch.ones(36, 36, dtype=torch.bool).triu(1)
        ours = heads.logits().masked_fill(unseen, -torch.inf).softmax(-1)
        assert torch.allclose(ours, own / own.sum(-1, keepdim=True), atol=1e-5)


def test_the_teachers_attention_is_what_its_blocks_compute(view):
    network = teachers.TimmEncoder("vit_tiny_patch16_224", None)
    seen = []
    for block in network.network.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _l, _i, out: seen.append(out))
    encoder = teachers.Encoder(network, network.width)
    features, heads = encoder.with_attention(view, 2)
    assert torch.equal(features, encoder(view)) and len(heads) == 2
    for own, full in zip(heads, seen[10:12], strict=True):
        rest = full[:, :, 1:, 1:]  # without the class token
        expected = rest / rest.sum(-1, keepdim=True)
        assert torch.allclose(own.logits().softmax(-1), expected, atol=1e-5)


def test_attention_learns_the_teachers_maps_across_grids(model, view):
    """A teacher of 196 patches, a student of 36 tokens: steps on the maps' loss lower it."""
    protocol = Alignment(teacher=f"timm:{TIMM}", attention=1.0, attention_blocks=1, tap=1)
    aligner = repa.build(protocol, model, weights=None)
    for block in aligner.teach[0].network.network.blocks:  # fresh ones attend evenly
        torch.nn.init.normal_(block.attn.qkv.weight, std=0.5)
    own = JanusFlowModel(model.config)
    own.load_state_dict(model.state_dict())
    optimizer = torch.optim.Adam(own.language_model.model.layers[0].parameters(), 1e-2)
    values = []
    for _ in range(12):
        prompt = own.encode_prompt(torch.tensor([[1, 2, 3]]))
        with attention_capture.attending(own.language_model, aligner.blocks) as looked:
            v, hidden = own.velocity(view.data, view.t, prompt, return_hidden=1)
        parts = aligner.losses(0, view, v, hidden, looked.at(PLACES))
        optimizer.zero_grad()
        parts["attention"].mean().backward()
        optimizer.step()
        values.append(parts["attention"].mean().item())
    assert values == sorted(values, reverse=True) and values[-1] < 0.95 * values[0]


def test_a_teacher_without_attention_maps_is_refused(model, view):
    protocol = Alignment(teacher="oracle", attention=1.0)
    with pytest.raises(ValueError, match="has no attention maps"):
        repa.build(protocol, model)
    with pytest.raises(ValueError, match="1 to 2 or a share"):
        Alignment(attention=1.0, attention_blocks=3, tap=2).blocks(6)
    encoder = teachers.Encoder(teachers.TimmEncoder("resnet10t", None), 512)
    with pytest.raises(ValueError, match="plain attention"):
        encoder.with_attention(view, 1)


# Teachers


def test_the_oracle_says_shape_and_colour_of_every_patch(view):
    features = teachers.Oracle()(view)
    assert features.shape == (3, 36, 20) and (features.sum(-1) == 2).all()
    for row, objects in zip(features.view(3, 6, 6, 20), view.objects, strict=True):
        o = max(objects, key=lambda o: o.shape not in ("ring", "star"))  # covers its centre
        patch = row[int(o.y // 16), int(o.x // 16)]
        assert patch[list(SHAPES).index(o.shape)] or o.shape in ("ring", "star")
        assert patch[9 + list(COLORS).index(o.color)] or o.shape in ("ring", "star")
        assert (row[..., 8] == row[..., 19]).all()  # background has neither


def test_the_average_looks_at_a_cleaner_time_of_the_same_picture(model, view):
    seen = {}

    def spy(_model, x, t, block):
        seen.update(x=x, t=t, block=block)
        return torch.zeros(len(x), 36, 64)

    teacher = teachers.make("ema", model, average=model, block=3, cleaner=0.2)
    teacher(replace(view, hidden_of=spy))
    assert torch.allclose(seen["t"], torch.tensor([0.1, 0.6, 1.0])) and seen["block"] == 3
    t = seen["t"].view(-1, 1, 1, 1)
    assert torch.allclose(seen["x"], (1 - t) * view.noise + t * view.data, atol=1e-5)


def test_the_random_teacher_is_fixed_and_differs_from_the_trained_one(model, view):
    first, second = (teachers.make("random", model)(view) for _ in range(2))
    own = teachers.make("own", model)(view)
    assert torch.equal(first, second) and not torch.allclose(first, own)
    assert not torch.allclose(first[0], first[1])  # it sees the image


def test_an_encoder_of_timm_is_read_from_a_local_file_as_it_was_saved(tmp_path, view):
    torch.manual_seed(1)
    source = timm.create_model(TIMM, num_classes=3).eval()
    save_file(source.state_dict(), tmp_path / "vit.safetensors")
    teacher = teachers.TimmEncoder(TIMM, tmp_path / "vit.safetensors")
    ours = teacher(view.pixel_values)
    x = torch.nn.functional.interpolate(
        view.pixel_values / 2 + 0.5, (224, 224), mode="bicubic", antialias=True
    )
    with torch.no_grad():
        expected = source.forward_features((x - 0.5) / 0.5)[:, 1:]
    assert torch.allclose(ours, expected, atol=1e-4) and ours.shape == (3, 196, 192)
    assert not any(p.requires_grad for p in teacher.parameters())


def test_a_convolutional_encoder_of_timm_gives_its_map_as_tokens(view):
    teacher = teachers.TimmEncoder("resnet10t", None)
    features = teacher(view.pixel_values)
    assert features.shape == (3, (-(-teacher.side // 32)) ** 2, teacher.width)


def test_what_a_teacher_needs_and_lacks_is_named(model, view, tmp_path):
    bare = View(t=view.t)
    with pytest.raises(ValueError, match="needs 'pixel_values'"):
        teachers.make("own", model)(bare)
    with pytest.raises(ValueError, match="needs 'objects'"):
        teachers.make("oracle", model)(bare)
    with pytest.raises(ValueError, match="needs 'features'"):
        teachers.make("cached", model)(bare)
    with pytest.raises(ValueError, match="7 wide, expected 48"):
        teachers.make("cached", model)(view)
    assert teachers.make("cached", model, cached_width=7)(view) is view.features
    with pytest.raises(ValueError, match="needs the averaged model"):
        teachers.make("ema", model)
    with pytest.raises(ValueError, match="choose one of own"):
        teachers.make("dino", model)
    with pytest.raises(ValueError, match="timm has no model 'vit_x'"):
        teachers.make("timm:vit_x", model)
    with pytest.raises(ValueError, match=r"expected a \.safetensors file"):
        teachers.make(f"timm:{TIMM}", model, weights=tmp_path / "vit.pth")


def test_a_teachers_file_and_size_are_settings(tmp_path, view, model):
    """A patch of 16 pixels sees 96 as 6 x 6 tokens, the student's own grid."""
    source = timm.create_model(TIMM, num_classes=3)
    save_file(source.state_dict(), tmp_path / "vit.safetensors")
    items = [f"alignment.teacher=timm:{TIMM}", "alignment.teacher_size=96"]
    items.append(f"alignment.teacher_weights={tmp_path / 'vit.safetensors'}")
    chosen = config.changed(config.of_stage(2), config.parse(items)).alignment
    aligner = repa.build(chosen, model)
    assert aligner.teach[0](view).shape == (3, 36, 192)


def test_a_teacher_of_ones_own_is_chosen_by_its_name(view, model):
    @teachers.teacher
    def brightness(_wanted):
        class Brightness:
            width = 1

            def __call__(self, view):
                (pixels,) = view.need("pixel_values")
                return pixels.mean(1).unfold(1, 16, 16).unfold(2, 16, 16).mean((3, 4)).flatten(1)

        return Brightness()

    try:
        chosen = config.changed(config.of_stage(2), {"alignment.teacher": "brightness"}).alignment
        assert repa.build(chosen, model).teach[0](view).shape == (3, 36)
    finally:
        del teachers.TEACHERS["brightness"]
    with pytest.raises(ValueError, match="did you mean 'oracle'"):
        config.changed(config.of_stage(2), {"alignment.teacher": "oracel"})


# CKNNA


def test_cknna_is_one_for_the_same_geometry_and_about_zero_for_another():
    x = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    turn = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64))[0].float()
    assert cknna(x, 3 * x @ turn) == pytest.approx(1, abs=1e-5)
    other = torch.randn(200, 9, generator=torch.Generator().manual_seed(1))
    assert abs(cknna(x, other)) < 0.05
    near = x + 0.5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    assert 0.1 < cknna(x, near) < 0.9


def test_cknna_with_all_neighbours_is_the_unbiased_cka():
    x, y = torch.randn(2, 12, 5, dtype=torch.float64)
    n = 12
    k, l = ((z / z.norm(dim=1, keepdim=True)) for z in (x, y))  # noqa: E741
    k, l = ((z @ z.T) * (1 - torch.eye(n)) for z in (k, l))  # noqa: E741
    one = torch.ones(n, dtype=torch.float64)

    def hsic(a, b):
        return (
            (a @ b).trace()
            + (one @ a @ one) * (one @ b @ one) / ((n - 1) * (n - 2))
            - 2 / (n - 2) * one @ a @ b @ one
        )

    expected = hsic(k, l) / (hsic(k, k) * hsic(l, l)).sqrt()
    assert cknna(x, y, n - 1) == pytest.approx(expected.item(), abs=1e-9)


def test_cknna_refuses_what_it_cannot_compare():
    x = torch.randn(8, 3)
    with pytest.raises(ValueError, match="same N >= 4"):
        cknna(x, x[:7])
    with pytest.raises(ValueError, match="needs 2 to 7 neighbours"):
        cknna(x, x, 8)


def test_by_block_is_one_at_the_block_whose_tokens_the_features_are(model, view):
    prompt = model.encode_prompt(torch.tensor([[1, 2, 3]]))
    x = view.noise.lerp(view.data, 0.5)
    blocks = len(model.language_model.model.layers)
    for k in range(1, blocks + 1):
        features = _hidden_of(model, x, view.t, k)
        found = by_block(model, x, view.t, prompt, 3 * features, tokens=12)
        assert len(found) == blocks and found[k - 1] == pytest.approx(1, abs=1e-5)
        assert all(abs(value - 1) > 1e-3 for i, value in enumerate(found) if i != k - 1), found


def test_by_block_refuses_features_of_other_tokens(model, view):
    prompt = model.encode_prompt(torch.tensor([[1, 2, 3]]))
    for features in (torch.randn(3, 35, 7), torch.randn(2, 36, 7), torch.randn(3, 7)):
        with pytest.raises(ValueError, match="as many tokens"):
            by_block(model, view.noise, view.t, prompt, features)
