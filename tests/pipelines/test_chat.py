"""Answers: one for each question, none that goes on unread, nothing swallowed on the way."""

import copy
import json
import shutil
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import GenerationConfig, StoppingCriteria

from janusflow import JanusFlowModel, JanusFlowPipeline
from janusflow.pipelines import answer_settings
from janusflow.pipelines.token_draws import drawing
from janusflow.scenes.shapes import render
from janusflow.scenes.world import scene

Q = "what is it?"


@pytest.fixture(scope="module")
def pictures():
    return [render(scene("test", i).objects) for i in range(2)]


def test_a_list_of_questions_gets_a_list_of_answers(tiny_pipe, pictures):
    short = dict(max_new_tokens=5)
    alone = [tiny_pipe.chat(Q, [picture], **short) for picture in pictures]
    assert tiny_pipe.chat([Q, Q], [[p] for p in pictures], **short) == alone
    assert tiny_pipe.chat([Q], [pictures[:1]], **short) == alone[:1]
    turns = [[{"role": "user", "content": Q}], [{"role": "user", "content": "and that?"}]]
    assert len(tiny_pipe.chat(turns, **short)) == 2


def test_several_answers_to_a_question_are_a_list(tiny_pipe, pictures):
    several = dict(num_return_sequences=3, do_sample=True, max_new_tokens=4)
    found = tiny_pipe.chat(Q, pictures[:1], **several)
    assert len(found) == 3 and all(isinstance(answer, str) for answer in found)
    found = tiny_pipe.chat([Q, Q], [[p] for p in pictures], **several)
    assert [len(answers) for answers in found] == [3, 3]
    beams = tiny_pipe.chat(Q, pictures[:1], num_return_sequences=2, num_beams=2, max_new_tokens=4)
    assert len(beams) == 2


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda p: p.chat(Q, max_new_token=3),
            TypeError,
            "got 'max_new_token'",
        ),
        (lambda p: p.chat(Q, [None]), ValueError, "images holds None"),
        (lambda p: p.conversation([None]), ValueError, "images holds None"),
        (lambda p: p.chat([Q, Q], stream=True), ValueError, "a stream is of one answer"),
        (lambda p: p.chat(Q, stream=True, num_return_sequences=2), ValueError, "of one answer"),
        (lambda p: p.chat("zq" * 1900), ValueError, "and the language model has"),
        (lambda p: p("zq" * 1900), ValueError, "and the language model has"),
        (lambda p: p.conversation().ask(Q, tempreature=1.0), TypeError, "did you mean 'temperatu"),
        (lambda p: p.conversation().ask(Q, num_return_sequences=2), ValueError, "from one answer"),
        (lambda p: p.chat(Q, adapters=["a"]), ValueError, "no adapter named 'a' is loaded"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name(tiny_pipe, call, kind, message):
    with pytest.raises(kind, match=message):
        call(tiny_pipe)


def test_a_given_generation_configuration_is_what_counts(tiny_pipe, recwarn):
    config = GenerationConfig(max_new_tokens=3)
    before = config.to_dict()
    found = tiny_pipe.chat(Q, generation_config=config)
    assert found == tiny_pipe.chat(Q, max_new_tokens=3)
    assert config.to_dict() == before
    sampled = GenerationConfig(max_new_tokens=20, do_sample=True, temperature=50.0)
    answers = {tiny_pipe.chat(Q, generation_config=sampled) for _ in range(3)}
    assert len(answers) > 1
    assert not [w for w in recwarn if "cut" in str(w.message)]


@pytest.fixture
def configured(tiny_pipe):
    """Sets the generation configuration that stands beside the weights, for one test."""
    before = tiny_pipe.model.generation_config

    def configure(**settings) -> None:
        ids = dict(eos_token_id=before.eos_token_id, pad_token_id=before.pad_token_id)
        tiny_pipe.model.generation_config = GenerationConfig(**ids, **settings)

    yield configure
    tiny_pipe.model.generation_config = before


def test_a_generation_configuration_beside_the_weights_comes_before_our_defaults(
    tiny_pipe, configured
):
    configured(max_new_tokens=3)
    found = tiny_pipe.chat(Q)
    configured()
    assert found == tiny_pipe.chat(Q, max_new_tokens=3)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (dict(max_length=2), "max_length is 2 and the prompt has"),
        (dict(min_length=10**6), "min_length is 1000000 after a prompt of"),
        (dict(max_new_tokens=9999, min_new_tokens=9999), "min_new_tokens is 9999 after a prompt"),
        (dict(return_dict_in_generate=True), "return_dict_in_generate is True in the generation"),
        (dict(guidance_scale=3.0), "guidance_scale is 3.0 in the generation configuration"),
    ],
)
def test_what_the_files_say_is_refused_as_what_the_caller_says(
    tiny_pipe, configured, said, message
):
    configured(**said)
    for ask in (tiny_pipe.chat, tiny_pipe.conversation().ask):
        with pytest.raises(ValueError, match=message):
            ask(Q)


@pytest.mark.parametrize("said", [dict(num_beams=3), dict(no_repeat_ngram_size=1)])
def test_what_the_files_say_holds_for_batches_and_conversations_too(
    tiny_pipe, configured, pictures, said
):
    configured(max_new_tokens=5, **said)
    alone = tiny_pipe.chat(Q, pictures[:1])
    assert tiny_pipe.chat([Q, Q], [pictures[:1]] * 2) == [alone] * 2
    assert tiny_pipe.conversation(pictures[:1]).ask(Q) == alone


def test_an_answer_cut_by_our_default_is_told(tiny_pipe, monkeypatch):
    monkeypatch.setattr(answer_settings, "LONGEST", 3)
    with pytest.warns(UserWarning, match="cut after 3 tokens"):
        tiny_pipe.chat(Q)


def test_an_answer_ends_where_the_positions_do(tiny_pipe, monkeypatch):
    prompt = tiny_pipe.processor(Q)["input_ids"].shape[1]
    monkeypatch.setattr(type(tiny_pipe), "positions", prompt + 3)
    tokens = tiny_pipe.processor.tokenizer
    ends = dict(eos_token_id=[len(tokens) - 1], pad_token_id=0)  # never drawn
    with pytest.warns(UserWarning, match="cut after 3 tokens; the model has no more positions"):
        told = tiny_pipe.chat(Q, max_new_tokens=9, **ends)
    assert told == tiny_pipe.chat(Q, max_new_tokens=3, **ends)
    config = GenerationConfig(max_new_tokens=9, **ends)
    assert told == tiny_pipe.chat(Q, generation_config=config) and config.max_new_tokens == 9
    assert told == tiny_pipe.chat(Q, max_length=9_000, **ends)
    with pytest.raises(ValueError, match="min_new_tokens is 4"):
        tiny_pipe.chat(Q, min_new_tokens=4)
    with pytest.raises(ValueError, match=f"max_length is 2 and the prompt has {prompt}"):
        tiny_pipe.chat(Q, max_length=2)


class Counted(StoppingCriteria):
    """Counts the tokens of an answer."""

    def __init__(self):
        self.tokens = 0

    def __call__(self, ids, *_, **__):
        self.tokens += 1
        return torch.zeros(len(ids), dtype=torch.bool)


def test_who_leaves_a_stream_ends_its_computation(tiny_pipe, pictures):
    counted = Counted()
    for _ in tiny_pipe.chat(
        Q, pictures[:1], stream=True, max_new_tokens=500, stopping_criteria=[counted]
    ):
        break
    at_once = counted.tokens
    time.sleep(0.2)
    assert counted.tokens == at_once < 400
    assert threading.active_count() < 20


@pytest.mark.slow
def test_a_program_that_ends_amid_a_stream_ends_well(tiny_folder):
    code = (
        "import sys; from janusflow import JanusFlowPipeline\n"
        "p = JanusFlowPipeline.from_pretrained(sys.argv[1])\n"
        "s = p.chat('what is it?', stream=True, max_new_tokens=100_000)\n"
        "print(len(next(s)) > 0)"
    )
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tiny_folder)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (out.returncode, out.stdout) == (0, "True\n"), out.stderr[-500:]


def test_beams_in_a_conversation_answer_as_in_a_chat(tiny_pipe, pictures):
    talk = tiny_pipe.conversation(pictures[:1])
    short = dict(max_new_tokens=5, num_beams=3)
    assert talk.ask(Q, **short) == tiny_pipe.chat(Q, pictures[:1], **short)
    assert talk.ask("and now?", max_new_tokens=3) is not None


def test_a_float_that_overshoots_changes_no_answer(tiny_pipe, pictures):
    floats = pictures[0] / 255
    expected = tiny_pipe.chat(Q, [floats], max_new_tokens=6)
    floats[0, 0, 0] = 1.0001
    assert tiny_pipe.chat(Q, [floats], max_new_tokens=6) == expected


# Pixels of editing and encoding


@pytest.mark.parametrize("kind", ["uint8", "bool", "float", "pil", "batch"])
def test_a_mask_of_zero_and_one_is_a_mask(tiny_pipe, pictures, kind):
    mask = np.zeros((96, 96), np.uint8)
    mask[:, 48:] = 1
    given = {
        "uint8": mask,
        "bool": mask > 0,
        "float": mask.astype(np.float32),
        "pil": Image.fromarray(mask),
        "batch": torch.tensor(mask)[None, None],
    }[kind]
    few = dict(num_inference_steps=2, seed=0, output_type="np")
    found = tiny_pipe.edit(pictures[0], "a star", mask_image=given, **few).images
    white = tiny_pipe.edit(pictures[0], "a star", mask_image=mask * 255, **few).images
    assert np.array_equal(found, white)
    assert np.abs(found[0, :, :48] - pictures[0][:, :48] / 255).max() < 1e-6


def test_a_mask_that_selects_nothing_is_refused(tiny_pipe, pictures):
    for nothing in (np.zeros((96, 96), np.uint8), Image.new("L", (96, 96), 100)):
        with pytest.raises(ValueError, match="no pixel of the mask is white"):
            tiny_pipe.edit(pictures[0], "a star", mask_image=nothing)


def test_encoding_reads_every_kind_of_image_alike(tiny_pipe, pictures):
    image = Image.fromarray(pictures[0])
    expected = tiny_pipe.encode(image)
    for kind in (pictures[0], pictures[0] / 255, image.convert("RGBA"), [image], pictures[0][None]):
        assert torch.allclose(tiny_pipe.encode(kind), expected, atol=1e-5)
    assert tiny_pipe.encode(image.convert("L")).shape == expected.shape
    assert tiny_pipe.encode([image, image]).shape[0] == 2
    with pytest.raises(ValueError, match="multiples of 8"):
        tiny_pipe.encode(image.resize((90, 90)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"eos_token_id": "x"}, "eos_token_id 'x'; expected a token's id"),
        ({"pad_token_id": [1, -2]}, "pad_token_id .* expected a token's id"),
        ({"num_beams": 10**6}, "num_beams 1000000; at most 256"),
    ],
)
def test_a_generation_configuration_that_would_fail_later_is_refused(
    tiny_folder, tmp_path, content, message
):
    shutil.copytree(tiny_folder, tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        JanusFlowModel.from_pretrained(tmp_path / "model")


def test_more_beams_than_memory_has_room_for_are_refused(tiny_pipe):
    for name in ("num_beams", "num_return_sequences"):
        with pytest.raises(ValueError, match=f"{name} is 10000; at most 256"):
            tiny_pipe.chat(Q, **{name: 10**4})


def test_stop_strings_beside_the_weights_find_their_tokenizer(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "model")
    content = {"stop_strings": ["a"], "max_new_tokens": 4}
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(content))
    assert isinstance(JanusFlowPipeline.from_pretrained(tmp_path / "model").chat(Q), str)


HOT = dict(do_sample=True, temperature=3.0, max_new_tokens=6)


def test_sampled_answers_are_reproducible_by_a_seed_and_leave_torchs_generator_alone(
    tiny_pipe, pictures
):
    before = torch.get_rng_state()
    one, two = (tiny_pipe.chat(Q, pictures[:1], seed=3, **HOT) for _ in range(2))
    other = tiny_pipe.chat(Q, pictures[:1], seed=4, **HOT)
    assert one == two != other
    assert tiny_pipe.chat([Q, Q], [pictures[:1]] * 2, seed=3, **HOT) == [one, other]
    several = tiny_pipe.chat(Q, pictures[:1], seed=3, num_return_sequences=2, **HOT)
    assert several == [one, other]
    assert "".join(tiny_pipe.chat(Q, pictures[:1], stream=True, seed=3, **HOT)).strip() == one
    talk = tiny_pipe.conversation(pictures[:1])
    assert talk.ask(Q, seed=3, **HOT) == one
    assert "".join(tiny_pipe.conversation(pictures[:1]).stream(Q, seed=3, **HOT)).strip() == one
    assert torch.equal(before, torch.get_rng_state())
    with torch.random.fork_rng():
        torch.manual_seed(3)
        assert tiny_pipe.chat(Q, pictures[:1], **HOT) == one


@pytest.mark.parametrize("seed", [-1, 1.5, "a", True, 2**63, [1]])
def test_what_is_no_seed_of_an_answer_is_refused(tiny_pipe, seed):
    for call in (tiny_pipe.chat, tiny_pipe.conversation().ask):
        with pytest.raises((TypeError, ValueError), match="the seed is"):
            call(Q, seed=seed)


SETTINGS = {
    "top_p": (1.5, "expected a number from 0 to 1"),
    "do_sample": ("yes", "expected True or False"),
    "stop_strings": ([""], "expected a text or several, none empty"),
    "eos_token_id": (10**9, "expected token ids below"),
    "pad_token_id": ("x", "expected token ids below"),
    "logits_processor": (max, "expected a list of functions"),
    "stopping_criteria": (5, "expected a list of functions"),
    "streamer": (5, "expected an object with put"),
    "max_time": (-1.0, "expected a number of at least"),
    "length_penalty": (float("nan"), "expected a number"),
    "min_new_tokens": (-1, "expected a number of at least 0"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_generate_takes_silently_or_stumbles_over_are_refused(tiny_pipe, name):
    value, expected = SETTINGS[name]
    for call in (tiny_pipe.chat, tiny_pipe.conversation().ask):
        with pytest.raises(ValueError, match=f"{name} is .*{expected}"):
            call(Q, **{"do_sample": True, name: value})


@pytest.mark.parametrize("name", ["dola_layers", "num_beam_groups", "constraints", "token_healing"])
def test_settings_that_run_code_from_the_hub_or_want_ids_are_refused_by_name(tiny_pipe, name):
    with pytest.raises(TypeError, match=f"got '{name}', which is not an argument"):
        tiny_pipe.chat(Q, **{name: 2})
    with pytest.raises(TypeError, match="from seed=, a whole number, not from a generator"):
        tiny_pipe.chat(Q, generator=torch.Generator())


def test_minus_one_and_lists_are_ends_that_are_taken(tiny_pipe):
    for ends in (-1, [1, 2], torch.tensor([1])):
        assert isinstance(tiny_pipe.chat(Q, max_new_tokens=2, eos_token_id=ends), str)


def test_an_image_tag_of_llava_is_read_where_images_come_and_refused_where_none_does(
    tiny_pipe, pictures
):
    short = dict(max_new_tokens=4)
    told = tiny_pipe.chat(f"<image_placeholder>{Q}", pictures[:1], **short)
    assert tiny_pipe.chat(f"<image>{Q}", pictures[:1], **short) == told
    assert tiny_pipe.chat([f"<image>{Q}"] * 2, pictures[:1] * 2, **short) == [told, told]
    talk = tiny_pipe.conversation(pictures[:1])
    assert talk.ask(f"<image>{Q}", **short) == told
    for call in (tiny_pipe.chat, talk.ask):
        with pytest.raises(ValueError, match="holds '<image>'"):
            call(f"<image>{Q}", **short)


def test_an_image_after_the_question_is_read_before_it_and_our_tag_there_is_warned_of(
    tiny_pipe, pictures
):
    short, shown = dict(max_new_tokens=4), {"type": "image", "image": pictures[0]}
    told = tiny_pipe.chat(Q, pictures[:1], **short)
    late = [{"role": "user", "content": [{"type": "text", "text": Q}, shown]}]
    assert tiny_pipe.chat(late, **short) == told
    assert tiny_pipe.chat(f"{Q} <image>", pictures[:1], **short) == told
    assert tiny_pipe.conversation(pictures[:1]).ask(f"{Q} <image>", **short) == told
    text = tiny_pipe.processor.apply_chat_template(late)
    assert text.endswith(f"User: <image_placeholder>\n{Q}")
    with pytest.warns(UserWarning, match="comes after the question"):
        tiny_pipe.chat(f"{Q} <image_placeholder>", pictures[:1], **short)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny_pipe.chat(f"<image_placeholder>{Q} <image_placeholder>", pictures[:2], **short)


def test_a_copied_conversation_goes_on_alone(tiny_pipe, pictures):
    talk, short = tiny_pipe.conversation(pictures[:1]), dict(max_new_tokens=4)
    talk.ask(Q, **short)
    one, two = copy.copy(talk), copy.deepcopy(talk)
    said = [each.ask("and how many?", **short) for each in (one, two)]
    assert len(talk.turns) == 2 and talk.ask("and how many?", **short) == said[0] == said[1]


def test_a_seed_serves_every_form_of_multinomial():
    shares = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    with drawing(5):
        rows = torch.multinomial(shares, 2)
    with drawing(5):
        assert torch.equal(torch.multinomial(input=shares, num_samples=2, generator=None), rows)
    with drawing(5):
        assert torch.equal(torch.multinomial(shares[0], 2), rows[0])
