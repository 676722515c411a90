"""Inputs of the model that cannot be meant are refused before anything is computed of them."""

import pytest
import torch
from PIL import Image

REFUSED = (ValueError, TypeError)


@pytest.fixture(scope="module")
def model(tiny_pipe):
    return tiny_pipe.model


@pytest.fixture(scope="module")
def inputs(tiny_pipe):
    return tiny_pipe.processor("what is it?", images=[Image.new("RGB", (96, 96), "red")])


def test_the_places_of_an_image_are_no_words(model, inputs, tiny_pipe):
    for call in (
        lambda: model.generate(inputs["input_ids"], max_new_tokens=2),
        lambda: model(input_ids=inputs["input_ids"]),
    ):
        with pytest.raises(ValueError, match="hold the places of an image, and pixel_values did"):
            call()
    text = tiny_pipe.processor("what is it?")
    assert model.generate(text["input_ids"], max_new_tokens=2).shape == (1, 2)


def test_an_answer_may_contain_the_token_of_an_image(tiny_pipe):
    model, place = tiny_pipe.model, tiny_pipe.model.image_token_id
    text = tiny_pipe.processor("what is it?")
    only = dict(
        logits_processor=[
            lambda _, scores: scores.where(scores == 0, -9e9).index_fill(
                1, torch.tensor([place]), 9.0
            )
        ]
    )
    assert model.generate(text["input_ids"], max_new_tokens=3, **only).tolist() == [[place] * 3]


SHAPES = {
    "one row": lambda ids: ids[0],
    "no row": lambda ids: ids[:0],
    "no token": lambda ids: ids[:, :0],
    "negative": lambda ids: ids.masked_fill(ids == ids[0, 0], -1),
}


@pytest.mark.parametrize("case", SHAPES)
def test_ids_of_another_shape_or_below_zero_are_refused(model, inputs, case):
    ids = SHAPES[case](inputs["input_ids"])
    words = "hold -1 of" if case == "negative" else r"have the shape .*; expected \(B, L\)"
    for call in (model, lambda input_ids: model.generate(input_ids, max_new_tokens=2)):
        with pytest.raises(ValueError, match=f"input_ids {words}"):
            call(input_ids=ids)


def test_a_label_below_zero_other_than_the_ignored_one_is_refused(model, tiny_pipe):
    ids = tiny_pipe.processor("what is it?")["input_ids"]
    assert model(input_ids=ids, labels=ids.masked_fill(ids == ids[0, -1], -100)).loss.isfinite()
    with pytest.raises(ValueError, match="labels hold -1 of"):
        model(input_ids=ids, labels=torch.full_like(ids, -1))


@pytest.mark.parametrize("name", ["assistant_model", "guidance_scale", "negative_prompt_ids"])
def test_a_search_that_reads_ids_again_is_refused_by_name(model, inputs, name):
    value = {"assistant_model": model, "guidance_scale": 2.0}.get(name, inputs["input_ids"])
    with pytest.raises(ValueError, match=f"{name} reads a prompt by its ids"):
        model.generate(**inputs, max_new_tokens=2, **{name: value})
