"""Special tokens that a user writes into a prompt or a question."""

import warnings

import pytest
from PIL import Image

from janusflow.models.janus_pro.processing import JanusProProcessor
from janusflow.models.janusflow.processing import JanusFlowProcessor
from janusflow.models.janusflow.tokenizer import BOS, EOS, IMAGE, IMAGE_GEN, IMAGE_START


@pytest.fixture(scope="module", params=["janusflow/scenes", "janusflow/scenes-pro"])
def processor(request):
    kind = JanusProProcessor if request.param.endswith("pro") else JanusFlowProcessor
    return kind.from_pretrained(request.param)


@pytest.mark.parametrize("tag", [IMAGE, IMAGE_START])
def test_a_prompt_that_holds_an_image_s_tag_is_refused_by_name(processor, tag):
    with pytest.raises(ValueError, match=f"holds '{tag}', which stands for an image"):
        processor.prompt(["a star", f"a red {tag} circle"])


def test_a_prompt_cannot_begin_the_image_itself():
    processor = JanusFlowProcessor.from_pretrained("janusflow/scenes")
    with pytest.raises(ValueError, match="stands for an image"):
        processor.prompt(f"a red circle{IMAGE_GEN}")


@pytest.mark.parametrize("token", [BOS, EOS])
def test_another_special_token_is_warned_of_and_read_as_by_transformers(processor, token):
    for ask in (processor.prompt, processor):
        with pytest.warns(UserWarning, match=r"special token and not as text"):
            found = ask(f"a red{token} circle")
        assert processor.tokenizer.convert_tokens_to_ids(token) in found["input_ids"][0, 1:]


def test_ordinary_texts_and_placeholders_in_questions_pass_in_silence(processor):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        processor.prompt("User: a <b> circle </s> [INST] | <|x|>")
        assert processor._turns(f"{IMAGE}\nwhat is this?", 1)
        processor._render(processor._turns(f"{IMAGE}\nwhat is this?", 1))


def test_a_special_token_added_later_is_known(processor):
    processor.tokenizer.add_special_tokens({"additional_special_tokens": ["<later>"]})
    with pytest.warns(UserWarning, match="<later>"):
        processor.prompt("a <later> star")


SEEN = Image.new("RGB", (8, 8))


def test_the_placeholder_of_llava_stands_for_an_image(processor):
    ours, theirs = (processor(f"{tag}\nwhat is this?", [SEEN]) for tag in (IMAGE, "<image>"))
    assert ours["input_ids"].tolist() == theirs["input_ids"].tolist()


@pytest.mark.parametrize("tag", ["<|vision_start|><|image_pad|><|vision_end|>", "<|image_1|>"])
def test_another_model_s_placeholder_is_refused_and_not_read_as_words(processor, tag):
    with pytest.raises(ValueError, match="another model's placeholder"):
        processor(f"{tag}what is this?", [SEEN])
    assert processor(f"what is {tag}?")  # without an image it is a text


def test_a_message_reads_its_images_from_paths_as_its_parts_do(processor, tmp_path):
    SEEN.save(tmp_path / "a.png")
    asked = {"role": "User", "content": f"{IMAGE}\nwhat?", "images": [str(tmp_path / "a.png")]}
    given = {**asked, "images": [SEEN]}
    one, other = (processor([message])["pixel_values"] for message in (asked, given))
    assert one.equal(other)
    with pytest.raises(ValueError, match="URLs are not downloaded"):
        processor([{**asked, "images": ["https://example.org/a.png"]}])


@pytest.mark.parametrize("content", [None, "", " ", []])
def test_a_message_that_asks_nothing_is_refused(processor, content):
    with pytest.raises(ValueError, match="message is empty"):
        processor([{"role": "user", "content": content}])
