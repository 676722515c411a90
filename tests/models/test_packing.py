"""Packs: nothing leaks, nothing changes, and the places are filled."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from janusflow.data.samples import Sample
from janusflow.models.attention_capture import attending
from janusflow.models.janusflow import packed_forward, packing
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.janusflow.packed_attention import NAME, use_packed_attention
from janusflow.training import losses
from janusflow.training.recipes import RECIPES


def without_text(prompt, dropped):
    """Hides all but BOS in the dropped rows; positions stay."""
    first = torch.nn.functional.one_hot(prompt.seen.long().argmax(dim=1), prompt.seen.shape[1])
    return replace(prompt, mask=torch.where(dropped[:, None], first.bool(), prompt.seen))


TOKENS = 37  # start tag and image tokens of a 96 x 96 image


def make_model(attention: str) -> JanusFlowModel:
    torch.manual_seed(0)
    model = JanusFlowModel(RECIPES["scenes-smoke"].config(vocab_size=600))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.08)
    if attention == NAME:
        use_packed_attention(model)
    else:
        model.language_model.set_attn_implementation(attention)
    return model


@pytest.fixture(scope="module", params=[NAME, "sdpa", "eager"])
def model(request):
    return make_model(request.param)


@pytest.fixture(scope="module")
def segmented():
    return make_model(NAME)


def generation(length: int, rng: torch.Generator) -> Sample:
    ids = torch.randint(0, 600, (length,), generator=rng)
    latents = torch.randn(16, 12, 12, generator=rng)
    return Sample(kind="generation", input_ids=ids, latents=latents)


def understanding(length: int, rng: torch.Generator) -> Sample:
    """Two images, and text of this length."""
    ids = torch.randint(0, 600, (length + 2 * TOKENS,), generator=rng)
    mask = torch.zeros(len(ids), dtype=torch.bool)
    mask[1 : 1 + TOKENS] = mask[2 + TOKENS : 2 + 2 * TOKENS] = True
    labels = ids.masked_fill(mask | (torch.rand(len(ids), generator=rng) < 0.5), -100)
    pixels = torch.randn(2, 3, 96, 96, generator=rng)
    return Sample(
        kind="understanding",
        input_ids=ids,
        labels=labels,
        image_token_mask=mask,
        pixel_values=pixels,
    )


def text(length: int, rng: torch.Generator) -> Sample:
    ids = torch.randint(0, 600, (length,), generator=rng)
    return Sample(kind="text", input_ids=ids, labels=ids.clone())


MAKERS = {"generation": generation, "understanding": understanding, "text": text}
BATCHES = st.lists(
    st.tuples(st.sampled_from(sorted(MAKERS)), st.integers(3, 40)), min_size=1, max_size=6
)
MIXED = [("generation", 5), ("understanding", 8), ("text", 30), ("generation", 9), ("text", 4)]


def draw(kinds, seed: int = 0):
    """Samples, and the noisy latents, times and dropped prompts of those to be made."""
    rng = torch.Generator().manual_seed(seed)
    samples = [MAKERS[kind](length, rng) for kind, length in kinds]
    count = sum(kind == "generation" for kind, _ in kinds)
    x, t = torch.randn(count, 16, 12, 12, generator=rng), torch.rand(count, generator=rng)
    return samples, x, t, torch.rand(count, generator=rng) < 0.4


def losses_and_gradients(model, samples, x, t, dropped, **how):
    model.zero_grad(set_to_none=True)
    out = packed_forward.forward(model, samples, x, t, dropped, tap=1, attend=(1, 3), **how)
    parts = [out.next_token()]
    if len(x):
        maps = [heads.logits() for heads in out.heads]
        parts += [losses.attention(one, torch.zeros_like(one)) for one in maps]
        parts += [part.square().flatten(1).mean(dim=1) for part in (out.velocity, out.hidden)]
    parts = torch.cat(parts)
    parts.sum().backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return parts.detach(), grads


def assert_same(one, other):
    (parts, grads), (parts2, grads2) = one, other
    torch.testing.assert_close(parts, parts2, rtol=1e-5, atol=1e-6)
    assert grads.keys() == grads2.keys()
    for name, grad in grads.items():
        assert (grad - grads2[name]).norm() <= 1e-5 * grads2[name].norm() + 1e-7, name


@settings(max_examples=6, deadline=None)
@given(kinds=BATCHES, seed=st.integers(0, 99), capacity=st.integers(120, 400))
def test_packed_equals_padded_in_losses_and_gradients(model, kinds, seed, capacity):
    batch = draw(kinds, seed)
    padded = losses_and_gradients(model, *batch, packed=False)
    assert_same(losses_and_gradients(model, *batch, capacity=capacity), padded)


def test_a_tap_at_full_depth_is_before_the_last_norm(model):
    samples, x, t, dropped = draw(MIXED, 1)
    depth, seen = len(model.language_model.model.layers), []
    last = model.language_model.model.layers[-1]
    hook = last.register_forward_hook(lambda _layer, _inputs, out: seen.append(out))
    out = packed_forward.forward(model, samples, x, t, dropped, tap=depth)
    hook.remove()
    whole = seen[0] if isinstance(seen[0], torch.Tensor) else seen[0][0]
    rows = whole.flatten(0, 1)
    assert all((rows == token).all(dim=1).any() for token in out.hidden[0])


def test_packed_equals_the_separate_paths_of_generation_and_understanding(model):
    samples, x, t, dropped = draw(MIXED, 1)
    out = packed_forward.forward(model, samples, x, t, dropped, tap=2, attend=[3])
    made = [s for s in samples if s.kind == "generation"]
    for i, sample in enumerate(made):
        row = slice(i, i + 1)
        prompt = without_text(model.encode_prompt(sample.input_ids[None]), dropped[row])
        with attending(model.language_model, [3]) as looked:
            v, hidden = model.velocity(x[row], t[row], prompt, return_hidden=2)
        (own,) = looked.at(torch.arange(1, 37)[None])
        maps = out.heads[0].logits()[row]
        torch.testing.assert_close(maps, own.logits(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(out.velocity[row], v, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(out.hidden[row], hidden, rtol=1e-5, atol=2e-6)
    answers = [s for s in samples if s.kind != "generation"]
    for loss, sample in zip(out.next_token(), answers, strict=True):
        seen = {}
        if sample.kind == "understanding":
            mask = sample.image_token_mask[None]
            seen = dict(pixel_values=sample.pixel_values, image_token_mask=mask)
        logits = model(sample.input_ids[None], **seen).logits
        plain = losses.next_token(logits, sample.labels[None])[0]
        torch.testing.assert_close(loss, plain, rtol=1e-5, atol=1e-6)


def test_a_dropped_prompt_leaves_its_text_no_trace_and_its_positions_in_place(segmented):
    samples, x, t, _ = draw([("generation", 9), ("generation", 12)])
    hide = torch.tensor([True, False])
    other = draw([("generation", 9), ("generation", 12)], seed=1)[0][0]
    other.input_ids[0] = samples[0].input_ids[0]
    before = packed_forward.forward(segmented, samples, x, t, hide).velocity
    assert torch.equal(
        packed_forward.forward(segmented, [other, samples[1]], x, t, hide).velocity, before
    )
    null = segmented.encode_prompt(samples[0].input_ids[None], unconditional=True)
    expected = segmented.velocity(x[:1], t[:1], null)
    torch.testing.assert_close(before[:1], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("changed", range(len(MIXED)))
def test_changing_one_sample_changes_no_bit_of_the_others(segmented, changed):
    samples, x, t, dropped = draw(MIXED)
    others, x2, t2, _ = draw(MIXED, seed=7)
    before = packed_forward.forward(segmented, samples, x, t, dropped, tap=1)
    kinds = [kind for kind, _ in MIXED]
    samples = [o if i == changed else s for i, (s, o) in enumerate(zip(samples, others))]  # noqa: B905
    if kinds[changed] == "generation":
        row = kinds[:changed].count("generation")
        x[row], t[row] = x2[row], t2[row]
    after = packed_forward.forward(segmented, samples, x, t, dropped, tap=1)
    made = [i for i, kind in enumerate(kinds) if kind == "generation"]
    told = [i for i, kind in enumerate(kinds) if kind != "generation"]
    for i, a, b in zip(made, before.velocity, after.velocity, strict=True):
        assert torch.equal(a, b) == (i != changed)
    for i, a, b in zip(told, before.next_token(), after.next_token(), strict=True):
        assert torch.equal(a, b) == (i != changed)


def test_not_a_number_in_one_sample_stays_there(segmented):
    samples, x, t, dropped = draw(MIXED)
    x[0] = torch.nan
    out = packed_forward.forward(segmented, samples, x, t, dropped)
    assert out.velocity[0].isnan().all() and out.velocity[1].isfinite().all()
    assert out.next_token().isfinite().all()


def test_gradient_checkpointing_changes_nothing():
    model, batch = make_model(NAME).train(), draw(MIXED)
    plain = losses_and_gradients(model, *batch)
    model.gradient_checkpointing_enable()
    assert_same(losses_and_gradients(model, *batch), plain)


def test_frozen_parts_get_no_gradient_and_the_others_the_same():
    model, batch = make_model(NAME), draw(MIXED)
    parts, grads = losses_and_gradients(model, *batch)
    model.vision_und_enc_model.requires_grad_(False)
    model.language_model.requires_grad_(False)
    frozen = ("vision_und_enc_model.", "language_model.")
    kept = {name: grad for name, grad in grads.items() if not name.startswith(frozen)}
    assert_same(losses_and_gradients(model, *batch), (parts, kept))


@given(lengths=st.lists(st.integers(1, 100), min_size=1, max_size=60), slack=st.integers(0, 200))
def test_every_sample_is_in_one_pack_and_no_pack_overflows(lengths, slack):
    samples = [Sample(kind="text", input_ids=torch.zeros(n).long()) for n in lengths]
    capacity = max(lengths) + slack
    packs = packing.pack(samples, capacity)
    assert sorted(i for one in packs for i in one) == list(range(len(samples)))
    sizes = [sum(lengths[i] for i in one) for one in packs]
    assert max(sizes) <= capacity
    fewest = -(-sum(lengths) // capacity)
    assert len(packs) <= max(1, 2 * fewest)  # no two packs fit into one
    assert packs == packing.pack(samples, capacity)


def test_a_mixed_batch_of_the_published_lengths_fills_its_packs():
    rng = torch.Generator().manual_seed(0)
    sizes = torch.randint(600, 680, (100,), generator=rng).tolist()  # prompt, time, 576 tokens
    sizes += torch.randint(650, 1200, (20,), generator=rng).tolist()  # an image and its answers
    sizes += torch.randint(50, 4000, (8,), generator=rng).tolist()
    samples = [Sample(kind="text", input_ids=torch.zeros(n).long()) for n in sizes]
    widths = [sum(sizes[i] for i in pack) for pack in packing.pack(samples, 4096)]
    assert sum(widths) / (len(widths) * max(widths)) > 0.92


def test_what_cannot_be_packed_is_refused_in_a_sentence(segmented):
    samples, x, t, dropped = draw(MIXED)
    with pytest.raises(ValueError, match="tokens, a pack holds 40"):
        packed_forward.forward(segmented, samples, x, t, dropped, capacity=40)
    with pytest.raises(ValueError, match="t has 1 rows for 2 samples"):
        packed_forward.forward(segmented, samples, x, t[:1], dropped)
    with pytest.raises(ValueError, match="list of samples is empty"):
        packed_forward.forward(segmented, [])
