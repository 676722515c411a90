"""Alignment of attention maps: the student's, the teacher's, and their loss."""

import itertools

import pytest
import torch

from janusflow.models import attention_capture
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.training import losses
from janusflow.training.alignment import repa, teachers
from janusflow.training.alignment.repa import Alignment

TIMM = "vit_tiny_patch16_224"
PLACES = torch.arange(3)[:, None] * 37 + torch.arange(1, 37)  # of image tokens after the time's


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
    network = teachers.TimmTeacherNetwork("vit_tiny_patch16_224", None)
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
    encoder = teachers.Encoder(teachers.TimmTeacherNetwork("resnet10t", None), 512)
    with pytest.raises(ValueError, match="plain attention"):
        encoder.with_attention(view, 1)
