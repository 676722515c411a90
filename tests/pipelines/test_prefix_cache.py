"""Questions that begin alike are answered as alone, and the image is read once."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from PIL import Image

from janusflow import JanusFlowPipeline
from janusflow.pipelines import answering, prefix_cache
from janusflow.scenes.shapes import render
from janusflow.scenes.world import scene

QUESTIONS = (
    "how many shapes are there?",
    "is there a red circle?",
    "describe the picture.",
    "is the circle left of the square?",
    "what color is the circle?",
)


@pytest.fixture(scope="module")
def pipe():
    made = JanusFlowPipeline.from_pretrained("janusflow/scenes")
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def pictures():
    return [render(scene("test", i).objects) for i in range(3)]


@contextmanager
def counted(pipe):
    """The images that the vision encoder reads inside."""
    seen = []
    hook = pipe.model.vision_und_enc_model.register_forward_pre_hook(
        lambda _, args: seen.append(len(args[0]))
    )
    try:
        yield seen
    finally:
        hook.remove()


def about(picture, question):
    return answering.message(question, [picture])


def test_questions_about_one_picture_read_it_once_and_are_answered_as_alone(pipe, pictures):
    alone = [pipe.chat(question, pictures[:1]) for question in QUESTIONS]
    with counted(pipe) as seen:
        together = answering.ask(
            pipe, [about(pictures[0], q) for q in QUESTIONS], max_new_tokens=256
        )
    assert together == alone and seen == [1] and len(set(alone)) > 2


def test_rows_find_their_own_picture(pipe, pictures):
    order = [0, 1, 0, 2, 1, 0]
    rows = [about(pictures[k], QUESTIONS[i % 5]) for i, k in enumerate(order)]
    with counted(pipe) as seen:
        together = answering.ask(pipe, rows, max_new_tokens=64)
    assert seen == [3]
    alone = [pipe.chat(QUESTIONS[i % 5], [pictures[k]]) for i, k in enumerate(order)]
    assert together == alone


def test_the_first_logits_are_those_of_questions_alone(pipe, pictures):
    rows = [about(pictures[0], q) for q in QUESTIONS]
    settings = dict(max_new_tokens=1, do_sample=False)
    scores = dict(output_logits=True, return_dict_in_generate=True)
    inputs = pipe.processor(rows)
    plain = pipe.model.generate(**inputs, **settings, **scores).logits[0]
    kept = []
    hook = pipe.model.language_model.lm_head.register_forward_hook(
        lambda _, __, out: kept.append(out[:, -1])
    )
    try:
        prefix_cache.generate(pipe.model, inputs, **settings)
    finally:
        hook.remove()
    torch.testing.assert_close(kept[0], plain, rtol=1e-5, atol=5e-5)


def test_nothing_is_shared_where_nothing_is_common(pipe, pictures):
    each = pipe.processor([about(p, "is there a star?") for p in pictures])
    assert prefix_cache.generate(pipe.model, each, do_sample=False) is None  # three images
    same = pipe.processor([about(pictures[0], q) for q in QUESTIONS])
    assert (
        prefix_cache.generate(pipe.model, same, repetition_penalty=1.2) is None
    )  # looks at the prompt
    words = pipe.processor(["a", "b"])
    assert prefix_cache.generate(pipe.model, words, do_sample=False) is None  # no image


def test_common_counts_what_all_rows_begin_with():
    assert prefix_cache.common([[1, 2, 3], [1, 2, 4, 5], [1, 2]]) == 2
    assert prefix_cache.common([[], [1]]) == 0


def test_a_conversation_answers_as_its_turns_do_and_reads_its_picture_once(pipe, pictures):
    talk = pipe.conversation(pictures[:1])
    with counted(pipe) as seen:
        answers = [talk.ask(question) for question in QUESTIONS]
    assert seen == [1]
    turns, told = [], []
    for question in QUESTIONS:
        turns += answering.message(question, pictures[:1] if not turns else [])
        told.append(pipe.chat(turns))
        turns.append({"role": "assistant", "content": told[-1]})
    assert answers == told and talk.turns == turns


def test_a_follow_up_costs_its_own_tokens(pipe, pictures):
    talk = pipe.conversation(pictures[:1])
    talk.ask(QUESTIONS[0])
    widths = []
    hook = pipe.model.language_model.model.register_forward_pre_hook(
        lambda _, __, kw: widths.append((kw.get("input_ids", kw.get("inputs_embeds"))).shape[1]),
        with_kwargs=True,
    )
    try:
        talk.ask(QUESTIONS[1])
    finally:
        hook.remove()
    assert widths[0] < 20  # of more than 50: neither the image nor the first question


def test_a_conversation_streams_and_goes_on_after_an_answer_cut_short(pipe, pictures):
    talk = pipe.conversation(pictures[:1])
    assert "".join(talk.stream(QUESTIONS[0])) == pipe.chat(QUESTIONS[0], pictures[:1])

    def broken(*_):
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        talk.ask(QUESTIONS[1], stopping_criteria=[broken])
    assert len(talk.turns) == 2
    fresh = pipe.conversation(pictures[:1])
    fresh.ask(QUESTIONS[0])
    assert talk.ask(QUESTIONS[2]) == fresh.ask(QUESTIONS[2])


def read_anew(talk) -> bool:
    """Whether the next question has the image read again."""
    with counted(talk.pipe) as seen:
        talk.ask(QUESTIONS[0], max_new_tokens=4)
    return bool(seen)


def test_changed_weights_and_adapters_are_noticed(tiny_pipe, pictures):
    talk = tiny_pipe.conversation(pictures[:1])
    model = tiny_pipe.model
    assert read_anew(talk) and not read_anew(talk)
    before = {name: w.clone() for name, w in model.state_dict().items()}
    model.load_state_dict(before)
    assert read_anew(talk) and not read_anew(talk)
    with torch.no_grad():
        model.vision_und_enc_aligner.bias.add_(1)
    assert read_anew(talk)
    model.load_state_dict(before)

    class Adapted(torch.nn.Module):
        active_adapters, scaling = ["a"], {"a": 1.0}

    model.adapter = Adapted()
    try:
        assert read_anew(talk) and not read_anew(talk)
        Adapted.scaling = {"a": 0.5}
        assert read_anew(talk)
    finally:
        del model.adapter


def test_threads_take_turns(tiny_pipe, pictures):
    talk = tiny_pipe.conversation(pictures[:1])
    with ThreadPoolExecutor(3) as pool:
        answers = [*pool.map(lambda q: talk.ask(q, max_new_tokens=4), QUESTIONS)]
    asked = [turn["content"][-1]["text"] for turn in talk.turns[::2]]
    said = [turn["content"] for turn in talk.turns[1::2]]
    assert dict(zip(asked, said, strict=True)) == dict(zip(QUESTIONS, answers, strict=True))
    assert [turn["role"] for turn in talk.turns] == ["user", "assistant"] * len(QUESTIONS)


def test_who_leaves_a_stream_ends_the_answer(tiny_pipe, pictures):
    talk = tiny_pipe.conversation(pictures[:1])
    pieces = talk.stream(QUESTIONS[0], max_new_tokens=2000)
    next(pieces)
    pieces.close()
    talk.ask(QUESTIONS[1], max_new_tokens=4)  # waits for what was left to end
    assert len(talk.turns) == 4
    assert len(tiny_pipe.processor.tokenizer(talk.turns[1]["content"])["input_ids"]) < 500


def test_a_conversation_needs_no_picture(pipe):
    talk = pipe.conversation()
    assert talk.ask("is there a star?", max_new_tokens=8) == pipe.chat(
        "is there a star?", max_new_tokens=8
    )


def test_the_command_line_asks_one_question_after_the_other(pipe, pictures, janusflow, tmp_path):
    Image.fromarray(pictures[0]).save(tmp_path / "a.png")
    talk = pipe.conversation(pictures[:1])
    answers = [talk.ask(question) for question in QUESTIONS[:2]]
    words = ("chat", tmp_path / "a.png", *QUESTIONS[:2], "--device=cpu")
    assert janusflow(*words) == (0, "\n".join([*answers, ""]), "")
    told = json.loads(janusflow(*words, "--json")[1])
    assert (told["question"], told["answer"]) == ([*QUESTIONS[:2]], answers)
