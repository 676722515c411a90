"""Janus-Pro draws token by token as transformers does, seeded by image, and answers."""

import pytest
import tiny_pro as pro
import torch
from PIL import Image

from janusflow.models.janus_pro.token_choice import TokenChoice

RED, TWO = "a red circle", "two blue squares left of a green star"


def seed(number):
    return torch.Generator().manual_seed(number)


def theirs(pro_pipe, prompts, sample=False, **options):
    """transformers' own loop on the same prompts."""
    x = pro_pipe.processor.prompt(prompts)
    try:
        return pro_pipe.model.generate(
            x["input_ids"],
            attention_mask=x["attention_mask"],
            generation_mode="image",
            do_sample=sample,
            **options,
        )
    except TypeError as error:  # 5.17's loop does not call its own cache as it wants to be called
        if "_prepare_static_cache" not in str(error):
            raise
        pytest.skip(f"this transformers draws no images itself: {error}")


@pytest.mark.parametrize("prompts", [[RED], [RED, TWO], [TWO, RED, RED]])
def test_greedy_tokens_equal_transformers_own_loop(pro_pipe, prompts):
    ours = pro_pipe(prompts, temperature=0, output_type="latent").tokens
    assert torch.equal(ours, theirs(pro_pipe, prompts))


@pytest.mark.parametrize("options", [{}, {"top_k": 9}, {"top_p": 0.7, "temperature": 1.7}])
def test_one_picture_is_sampled_as_transformers_would_with_that_seed(pro_pipe, options):
    torch.manual_seed(5)
    own = theirs(pro_pipe, [TWO], sample=True, **{"top_k": 0, **options})
    ours = pro_pipe(TWO, generator=seed(5), output_type="latent", **options).tokens
    assert torch.equal(ours, own)


def test_decoded_pictures_equal_those_of_transformers_to_the_last_bit(pro_pipe):
    tokens = theirs(pro_pipe, [RED])
    with torch.no_grad():
        pixels = pro_pipe.model.decode_image_tokens(tokens)[0]
    expected = ((pixels + 1) / 2 * 255).clamp(0, 255).to(torch.uint8).numpy()
    assert pro_pipe(RED, temperature=0).images[0].tobytes() == expected.tobytes()


def test_a_seeded_picture_is_the_same_in_any_batch(pro_pipe):
    alone = pro_pipe(TWO, generator=seed(7))
    prompts, seeds = [RED, TWO, "a star"], [seed(1), seed(7), seed(2)]
    among = pro_pipe(prompts, generator=seeds)
    assert torch.equal(among.tokens[1], alone.tokens[0])
    assert among.images[1].tobytes() == alone.images[0].tobytes()
    several = pro_pipe(
        [RED, TWO], num_images_per_prompt=2, generator=[seed(n) for n in (3, 4, 7, 8)]
    )
    assert torch.equal(several.tokens[2], alone.tokens[0])
    assert not torch.equal(several.tokens[3], alone.tokens[0])


def test_scale_one_reads_one_row_and_a_rule_of_samplers_guides_as_a_number(pro_pipe):
    from samplers import guidance

    plain = pro_pipe(RED, guidance_scale=1.0, temperature=0)
    assert plain.calls == 16
    ruled = pro_pipe(RED, guidance_scale=guidance.cfg(5.0), temperature=0)
    numbered = pro_pipe(RED, guidance_scale=5.0, temperature=0)
    assert torch.equal(ruled.tokens, numbered.tokens) and numbered.calls == 32
    never = guidance.guidance_interval(5.0, 2.0, 3.0)
    assert torch.equal(pro_pipe(RED, guidance_scale=never, temperature=0).tokens, plain.tokens)


def test_a_prompt_is_its_own_negative_without_effect(pro_pipe):
    plain = pro_pipe(RED, guidance_scale=1.0, temperature=0).tokens
    assert torch.equal(pro_pipe(RED, negative_prompt=RED, temperature=0).tokens, plain)


def test_the_unconditional_row_is_the_published_one(pro_pipe):
    from janusflow.models.janus_pro.token_sampling import unconditional

    ids = pro_pipe.processor.prompt_ids(RED)[0]
    row = unconditional(ids, pro_pipe.processor.pad_id)
    assert row[0] == ids[0] == pro_pipe.processor.tokenizer.bos_token_id
    assert row[-1] == ids[-1] == pro_pipe.processor.image_start_id
    assert set(row[1:-1]) == {pro_pipe.processor.pad_id} and len(row) == len(ids)


def test_all_576_steps_equal_a_loop_without_cache():
    """transformers 5.2 diverged here without a word (its issue 44792)."""
    from janusflow.models.janus_pro import token_sampling

    model, tokens, rows = pro.model(side=384), [], [(1, 5, 9, 4), (1, 2, 2, 4)]
    path = token_sampling.draw(
        model, rows[:1], rows[1:], lambda c, u, _: u + 5 * (c - u), lambda x: x.argmax(dim=-1)
    )
    made = torch.stack([*path], dim=1).clone()
    assert made.shape == (1, 576) and len(made.unique()) > 5
    with torch.no_grad():  # causal: all steps' logits in one pass without any cache
        text = model.get_input_embeddings()(torch.tensor(rows))
        tokens = model.prepare_embeddings_for_image_generation(made[:, :-1]).repeat(2, 1, 1)
        hidden = model.model.language_model(
            inputs_embeds=torch.cat([text, tokens], dim=1), use_cache=False
        ).last_hidden_state[:, -576:]
        cond, uncond = model.model.generation_head(hidden)
    logits = uncond + 5 * (cond - uncond)
    taken = logits.gather(1, made.T)[:, 0]
    assert (logits.max(dim=1).values - taken).max() < 1e-4 * logits.abs().max()


def test_a_callback_sees_every_token_and_may_stop(pro_pipe):
    seen = []

    def look(pro_pipe, step, t, state):
        seen.append((step, t, state["tokens"].shape[1]))
        pro_pipe._interrupt = step == 2

    tokens = pro_pipe(RED, generator=seed(0), callback_on_step_end=look).tokens
    assert seen == [(0, 1 / 16, 1), (1, 2 / 16, 2), (2, 3 / 16, 3)]
    assert not tokens[0, 3:].any()


def test_answers_come_without_the_question_and_in_a_stream(pro_pipe):
    picture = Image.new("RGB", (64, 64), "green")
    whole = pro_pipe.chat("what is it?", [picture], max_new_tokens=6)
    assert "what" not in whole
    talk = pro_pipe.conversation([picture])
    assert talk.ask("what is it?", max_new_tokens=6) == pro_pipe.chat(
        "what is it?", [picture], max_new_tokens=6
    )
    assert "".join(talk.stream("and now?", max_new_tokens=3)).strip() == talk.turns[-1]["content"]
    pieces = [*pro_pipe.chat("what is it?", [picture], max_new_tokens=6, stream=True)]
    assert "".join(pieces).strip() == whole


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1.0},
        {"top_k": 0},
        {"top_p": 1.5},
        {"guidance_scale": float("nan")},
        {"generator": [seed(0), seed(1)]},
        {"negative_prompt": ["a", "b"]},
        {"output_type": "gif"},
    ],
)
def test_what_does_not_fit_is_refused_before_a_token_is_drawn(pro_pipe, options):
    with pytest.raises(ValueError):
        pro_pipe(RED, **options)


def test_encoded_pictures_decode_to_their_own_tokens_again(pro_pipe):
    tokens = pro_pipe(RED, generator=seed(0)).tokens
    pictures = pro_pipe.decode(tokens)
    assert pro_pipe.encode(pictures).shape == tokens.shape
    assert pro_pipe.decode(tokens, "pt").shape == (1, 3, 64, 64)


def test_two_rows_by_a_large_matrix_are_the_product():
    from janusflow.utils.cpu import tall_linear

    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch has no oneDNN")
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2048, 2048, generator=generator)
    bias, x = torch.randn(2048, generator=generator), torch.randn(2, 1, 2048, generator=generator)
    exact = torch.nn.functional.linear(x.double(), weight.double(), bias.double())
    with tall_linear.TwoRows() as mode:
        found = [torch.nn.functional.linear(x, weight, bias) for _ in range(2)]
    assert torch.equal(*found) and len(mode.packed) == 1
    assert (found[0] - exact).abs().max() < 1e-5 * exact.abs().max()


def test_drawing_uses_nothing_that_transformers_is_about_to_drop(pro_pipe, caplog, recwarn):
    pro_pipe(RED, generator=seed(0))
    told = [str(w.message) for w in recwarn if w.category is FutureWarning]
    assert not told and "deprecated" not in caplog.text


def test_a_temperature_that_would_overflow_takes_the_likeliest_token():
    logits = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    for temperature in (0, 1e-9, 1e-300):
        found = TokenChoice(temperature=temperature).function(torch.Generator())(logits)
        assert torch.equal(found, logits.argmax(-1))
