"""Processor: the file's own ids, the published prompts, the published pixels."""

import copy
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizer import TEXTS, WORDS, edit, picture
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from janusflow import JanusFlowProcessor
from janusflow.models.janusflow.chat_format import SYSTEM_PROMPT
from janusflow.models.janusflow.tokenizer import (
    BOS,
    EOS,
    IMAGE,
    IMAGE_GEN,
    PAD,
    SPECIAL_TOKENS,
    build_tokenizer,
)


@pytest.fixture(scope="module")
def processor(tokenizer_folder):
    return JanusFlowProcessor.from_pretrained(tokenizer_folder)


def word_level(folder):
    words = [*SPECIAL_TOKENS, "<unk>", *WORDS, ":", "?"]
    model = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.save(str(folder / "tokenizer.json"))


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(codec="utf-8"), max_size=60))
def test_ids_are_those_of_the_file_with_bos_first_exactly_once(tokenizer_folder, processor, text):
    plain = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    bos = plain.token_to_id(BOS)
    assert processor.ids(text) == [bos, *plain.encode(text, add_special_tokens=False).ids]
    assert processor.ids(BOS + text) == processor.ids(text)
    assert processor.decode(processor.ids(text)) == text


@pytest.mark.parametrize("add_bos", [True, False, None])
@pytest.mark.parametrize("in_file", [True, False])
def test_bos_comes_once_whatever_the_configuration_says(own, processor, add_bos, in_file):
    if in_file:
        tokenizer = Tokenizer.from_file(str(own / "tokenizer.json"))
        tokenizer.post_processor = processors.TemplateProcessing(
            f"{BOS} $A {EOS}", special_tokens=[(t, tokenizer.token_to_id(t)) for t in (BOS, EOS)]
        )
        tokenizer.save(str(own / "tokenizer.json"))
    edit(own / "tokenizer_config.json", add_bos_token=add_bos)
    loaded = JanusFlowProcessor.from_pretrained(own)
    assert loaded.ids(TEXTS[0]) == processor.ids(TEXTS[0])
    assert loaded.tokenizer(TEXTS[0]).input_ids == processor.ids(TEXTS[0])


def test_every_word_is_one_token_with_and_without_a_space(processor):
    assert all(len(processor.ids(word)) == len(processor.ids(f" {word}")) == 2 for word in WORDS)


def test_building_twice_gives_the_same_files(tokenizer_folder, tmp_path):
    build_tokenizer(tmp_path, reversed(WORDS), TEXTS)
    for file in tokenizer_folder.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


def test_saving_keeps_every_file_and_every_unknown_key(own, tmp_path_factory):
    edit(own / "processor_config.json", novelty=[1, {"x": None}])
    saved = tmp_path_factory.mktemp("saved") / "new"
    first = JanusFlowProcessor.from_pretrained(own)
    first.save_pretrained(saved)
    assert (saved / "tokenizer.json").read_bytes() == (own / "tokenizer.json").read_bytes()
    assert sorted(f.name for f in saved.iterdir()) == sorted(f.name for f in own.iterdir())
    for file in own.iterdir():
        assert json.loads(file.read_text("utf-8")) == json.loads(
            (saved / file.name).read_text("utf-8")
        )
    assert JanusFlowProcessor.from_pretrained(saved).ids(TEXTS[1]) == first.ids(TEXTS[1])


def test_missing_tags_are_added_reported_and_saved(own, tmp_path_factory):
    edit(own / "processor_config.json", image_start_tag="<new_start>")
    loaded = JanusFlowProcessor.from_pretrained(own)
    assert loaded.added_tags == ("<new_start>",)
    assert loaded.image_start_id == len(loaded.tokenizer) - 1
    with pytest.raises(ValueError, match=r"new_start.*resize"):
        loaded.check_fits(len(loaded.tokenizer) - 1)
    loaded.check_fits(len(loaded.tokenizer))
    saved = tmp_path_factory.mktemp("saved")
    loaded.save_pretrained(saved)
    again = JanusFlowProcessor.from_pretrained(saved)
    assert (again.added_tags, again.image_start_id) == ((), loaded.image_start_id)


def test_a_word_level_tokenizer_works(own):
    word_level(own)
    loaded = JanusFlowProcessor.from_pretrained(own)
    row = loaded.prompt("a red circle")["input_ids"][0].tolist()
    tokens = loaded.tokenizer.convert_ids_to_tokens(row)
    assert tokens == [BOS, "User", ":", "a", "red", "circle", "Assistant", ":"]
    assert loaded("how many shapes?", [picture()])["image_token_mask"].sum() == 37


def test_padding_falls_back_to_the_end_of_sentence(own):
    edit(own / "processor_config.json", pad_tag="<no such token>")
    loaded = JanusFlowProcessor.from_pretrained(own)
    assert loaded.pad_id == loaded.tokenizer.eos_token_id
    assert JanusFlowProcessor.from_pretrained(own).tokenizer.convert_tokens_to_ids(PAD) == 2


def test_a_prompt_is_the_published_text_without_its_generation_tag(tokenizer_folder, processor):
    plain = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    whole = plain.encode(f"User: a red circle\n\nAssistant:{IMAGE_GEN}").ids
    ids = processor.prompt("a red circle")["input_ids"][0].tolist()
    assert ids == [processor.tokenizer.bos_token_id, *whole[:-1]]
    assert whole[-1] == processor.image_gen_id


def test_prompts_in_a_batch_are_padded_on_the_left_and_else_as_alone(processor):
    texts = ["a", "a red circle and a blue square"]
    both = processor.prompt(texts)
    for text, ids, mask in zip(texts, both["input_ids"], both["attention_mask"], strict=True):
        alone = processor.prompt(text)["input_ids"][0]
        assert torch.equal(ids[mask.bool()], alone)
        assert mask[-len(alone) :].all() and not mask[: -len(alone)].any()
        assert (ids[~mask.bool()] == processor.pad_id).all()


@pytest.mark.parametrize("texts", ["", " \n", [], ["a", ""], [None]])
def test_an_empty_prompt_is_refused(processor, texts):
    with pytest.raises(ValueError, match="none empty"):
        processor.prompt(texts)


@pytest.mark.parametrize(
    "form, user, assistant",
    [("deepseek_old", "User", "Assistant"), ("deepseek", "<|User|>", "<|Assistant|>")],
)
def test_both_ways_of_writing_messages_give_the_published_text(own, form, user, assistant):
    """JanusFlow's roles are `User` and `Assistant` whatever the file says and the caller writes."""
    edit(own / "processor_config.json", sft_format=form)
    loaded = JanusFlowProcessor.from_pretrained(own)
    published = [
        {"role": user, "content": f"{IMAGE}\nfirst ", "images": ["a.png"]},
        {"role": assistant, "content": "one"},
        {"role": user, "content": f"{IMAGE}\nsecond", "images": ["b.png"]},
        {"role": assistant, "content": ""},
    ]
    modern = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "first"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "one"}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "second"}]},
    ]
    expected = (
        f"{SYSTEM_PROMPT}\n\nUser: {IMAGE}\nfirst\n\nAssistant: one{EOS}"
        f"User: {IMAGE}\nsecond\n\nAssistant:"
    )
    assert loaded.apply_chat_template(published, continue_final_message=True) == expected
    assert loaded.apply_chat_template(modern, add_generation_prompt=True) == expected
    assert loaded.apply_chat_template(published[:3], add_generation_prompt=True) == expected
    images = [picture(seed=1), picture(seed=2)]
    one, two = loaded(published, images), loaded(modern, images)
    three = loaded(text=expected, images=images)
    for key in ("input_ids", "image_token_mask", "pixel_values"):
        assert torch.equal(one[key], two[key]) and torch.equal(one[key], three[key])


def test_an_answer_begun_is_continued_or_closed_as_told(processor):
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a red"}]
    begun = processor.tags.system_prompt + "\n\nUser: hi\n\nAssistant: a red"
    assert processor(turns)["input_ids"][0].tolist() == processor.ids(begun)
    assert processor.apply_chat_template(turns, continue_final_message=True) == begun
    assert processor.apply_chat_template(turns) == begun + EOS
    assert processor.apply_chat_template(turns, add_generation_prompt=False) == begun + EOS
    new = processor.apply_chat_template(turns, add_generation_prompt=True)
    assert new == f"{begun}{EOS}Assistant:"
    with pytest.raises(ValueError, match="continue_final_message"):
        processor.apply_chat_template(turns[:1], continue_final_message=True)
    with pytest.raises(ValueError, match="add_generation_prompt is 'no'"):
        processor.apply_chat_template(turns, add_generation_prompt="no")


def test_an_answer_is_asked_for_only_where_told_as_by_transformers(processor):
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    assert processor.apply_chat_template(talk) == "Be brief.\n\nUser: hi"
    asks = processor.apply_chat_template(talk, tokenize=True, add_generation_prompt=True)
    assert torch.equal(asks["input_ids"], processor(talk)["input_ids"])


def test_a_system_message_replaces_the_systems_words(processor):
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    text = processor.apply_chat_template(talk, add_generation_prompt=True)
    assert text == "Be brief.\n\nUser: hi\n\nAssistant:"


def test_a_picture_becomes_start_placeholders_end_and_the_mask_marks_the_first_two(processor):
    out = processor(f"{IMAGE}\nhow many shapes?", picture())
    ids, mask = out["input_ids"][0], out["image_token_mask"][0]
    marked = ids[mask].tolist()
    assert marked == [processor.image_start_id] + [processor.image_id] * 36
    assert ids[mask.nonzero()[-1] + 1] == processor.image_end_id
    assert not torch.isin(ids[~mask], torch.tensor(marked)).any()


def test_pictures_are_in_reading_order_over_the_batch(processor):
    images = [picture(seed=i) for i in range(3)]
    inline = [
        [{"role": "user", "content": [{"type": "image", "image": image} for image in part]}]
        for part in (images[:1], images[1:])
    ]
    questions = ["a", "a red circle"]
    nested = processor(questions, [images[:1], images[1:]])
    tagged = [IMAGE + "\na", f"{IMAGE}\n{IMAGE}\na red circle"]
    assert torch.equal(processor(inline)["pixel_values"], processor.image_processor(images))
    assert torch.equal(nested["pixel_values"], processor.image_processor(images))
    for key, value in processor(tagged, images).items():
        assert torch.equal(value, nested[key])
    assert nested["image_token_mask"].sum(1).tolist() == [37, 74]
    assert nested["attention_mask"][0, 0] == 0 and nested["attention_mask"][:, -1].all()


def test_turns_without_placeholders_get_them_in_the_first_question(processor):
    turns = [{"role": "user", "content": "how many?"}]
    with_turns, with_text = processor(turns, [picture()]), processor("how many?", [picture()])
    assert torch.equal(with_turns["input_ids"], with_text["input_ids"])
    assert with_text["image_token_mask"].sum() == 37


def test_text_alone_has_no_pixels(processor):
    assert set(processor(["hi", "how many shapes?"])) == {"input_ids", "attention_mask"}


def test_nothing_the_caller_passes_is_modified(processor):
    talk = [{"role": "User", "content": f"{IMAGE}\nhi "}, {"role": "Assistant", "content": ""}]
    image, array, tensor = picture(), np.full((9, 7, 3), 0.5), torch.rand(3, 8, 5)
    before = copy.deepcopy((talk, array, tensor)), image.tobytes()
    images = [image]
    processor(talk, images)
    processor(["a", "b"], [[array], [tensor]])
    assert images == [image] and image.tobytes() == before[1]
    assert talk == before[0][0] and np.array_equal(array, before[0][1])
    assert torch.equal(tensor, before[0][2])


@pytest.mark.parametrize(
    "conversation, images, words",
    [
        (f"{IMAGE} hi", None, "0 images came for 1 placeholders"),
        (f"{IMAGE} hi", [picture(), picture()], "2 images came for 1"),
        (["a", "b"], [[picture()]], "1 lists of images came for 2"),
        ([{"role": "robot", "content": "hi"}], None, "unknown role 'robot'"),
        ([{"role": "user"}], None, "'role' and 'content'"),
        ([{"role": "user", "content": [{"type": "video"}]}], None, "a part of a message"),
        ([], None, "asks nothing"),
        ("", None, "question is empty"),
    ],
)
def test_conversations_that_do_not_fit_say_why(processor, conversation, images, words):
    with pytest.raises(ValueError, match=words):
        processor(conversation, images)


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("tokenizer.json", None, "lacks tokenizer.json"),
        ("preprocessor_config.json", None, "lacks preprocessor_config.json"),
        ("tokenizer.json", "{", "not valid JSON"),
        ("tokenizer.json", "{}", "describes no tokenizer"),
        ("processor_config.json", "[1]", "expected a JSON object"),
        ("processor_config.json", '{"num_image_tokens": NaN}', "NaN is no JSON number"),
        ("processor_config.json", '{"num_image_tokens": 0}', "from 1 to 65536"),
        ("processor_config.json", '{"sft_format": "llama"}', "no chat format named 'llama'"),
        ("processor_config.json", "[" * 100_000, "not valid JSON"),
        ("preprocessor_config.json", "{}", "image_size"),
        ("preprocessor_config.json", '{"image_size": "big"}', "whole number"),
        ("preprocessor_config.json", '{"image_size": 96, "image_mean": [1]}', "three numbers"),
        (
            "preprocessor_config.json",
            '{"image_size": 96, "image_std": [1, 0, 1]}',
            "image_std is 1.0, 0",
        ),
        ("preprocessor_config.json", '{"image_size": 96, "image_std": -1}', "image_std is -1.0"),
        ("preprocessor_config.json", '{"image_size": 96, "image_mean": 127}', "image_mean is 127"),
        ("preprocessor_config.json", '{"image_size": 96, "rescale_factor": true}', "rescale_fact"),
        ("preprocessor_config.json", '{"image_size": 96, "rescale_factor": 1.5}', "most 1"),
        (
            "preprocessor_config.json",
            '{"image_size": 96, "do_center_crop": true}',
            "do_center_crop",
        ),
        ("preprocessor_config.json", '{"image_size": 96, "do_resize": false}', "do_resize False"),
        (
            "preprocessor_config.json",
            '{"image_size": 96, "rescale_factor": 1e999}',
            "no JSON number",
        ),
        ("preprocessor_config.json", '{"image_size": 96.5}', "whole numbers"),
        ("tokenizer_config.json", '{"bos_token": "<none>"}', "has no '<none>'"),
        ("tokenizer_config.json", "x" * (4 * 2**20 + 1), "larger than"),
    ],
)
def test_a_spoilt_file_is_named_in_one_sentence(own, name, content, words):
    (own / name).unlink() if content is None else (own / name).write_text(content, "utf-8")
    with pytest.raises(ValueError, match=words) as caught:
        JanusFlowProcessor.from_pretrained(own)
    assert "\n" not in str(caught.value)


def test_defaults_are_the_published_ones_where_the_file_is_silent(own):
    (own / "processor_config.json").unlink()
    loaded = JanusFlowProcessor.from_pretrained(own)
    tags = loaded.tags
    assert (tags.image_start_tag, tags.image_end_tag) == ("<begin_of_image>", "<end_of_image>")
    assert (tags.sft_format, tags.num_image_tokens) == ("deepseek", 576)


def test_formatted_prompts_are_texts(tiny_pipe):
    for wrong in (["a"], None):
        with pytest.raises(ValueError, match=r"text holds .*; expected one text or a list"):
            tiny_pipe.processor(text=[wrong])
