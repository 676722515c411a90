"""Every argument of another kind is used as meant, or refused in a sentence that names it."""

import json
import warnings

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler
from PIL import Image
from transformers import GenerationConfig, TextStreamer

from janusflow import JanusFlowPipeline
from janusflow.models.janusflow.modeling import JanusFlowModel

REFUSED = (TypeError, ValueError)
LONGEST = 330  # characters of a refusal
NUMBERS = np.random.default_rng(0)


def picture(side: int = 32) -> Image.Image:
    return Image.fromarray(NUMBERS.integers(0, 256, (side, side, 3), dtype=np.uint8))


def draw(pipe, prompt="a star", **given):
    return pipe(prompt, **{"num_inference_steps": 2, "output_type": "latent", "seed": 0} | given)


def refused(call, words: str) -> None:
    with pytest.raises(REFUSED, match=words) as error:
        call()
    assert len(str(error.value)) <= LONGEST


@pytest.fixture(scope="module")
def noise(tiny_pipe):
    return tiny_pipe.prepare_latents(1, None, None, 3)


CALLBACKS = {
    "None": (lambda _: {"latents": None}, "NoneType as 'latents'"),
    "an array": (lambda kw: {"latents": kw["latents"].numpy()}, "ndarray as 'latents'"),
    "NaN": (lambda kw: {"latents": kw["latents"] * float("nan")}, "latents with NaN"),
    "another shape": (lambda kw: {"latents": kw["latents"][:, :1]}, "latents of shape"),
}


@pytest.mark.parametrize("name", CALLBACKS)
def test_what_a_callback_returns_is_a_tensor_or_refused(tiny_pipe, name):
    made, words = CALLBACKS[name]
    refused(lambda: draw(tiny_pipe, callback_on_step_end=lambda *a: made(a[-1])), words)


GENERATION = {
    "tensor_inputs text": (dict(callback_on_step_end_tensor_inputs="latents"), "tensor_inputs is"),
    "tensor_inputs number": (dict(callback_on_step_end_tensor_inputs=3), "tensor_inputs is 3"),
    "negative number": (dict(negative_prompt=3), "negative_prompt is 3"),
    "negative list": (dict(negative_prompt=[3]), "negative_prompt is 3"),
    "steps": (dict(num_inference_steps=10**12), "num_inference_steps is 10000"),
    "height": (dict(height=10**6), "height is 1000000"),
    "images": (dict(num_images_per_prompt=10**9), "num_images_per_prompt is"),
    "return_dict": (dict(return_dict="no"), "return_dict is 'no'"),
    "verifier": (dict(best_of=2, verifier=lambda *_: "x"), "the verifier returned str"),
    "sampler scheduler": (dict(sampler=EulerDiscreteScheduler()), "the sampler is EulerDis"),
    "sampler number": (dict(sampler=3), "the sampler is 3"),
    "sampler class": (dict(sampler=Image.Image), "the sampler is"),
    "sampler name": (dict(sampler="eulr"), "did you mean 'euler'"),
    "sigmas": (dict(grid=[1.0, 0.5, 0.0]), "runs from 1 to 0"),
    "beyond data": (dict(grid=[0.0, 0.5, 2.0]), "runs from 0 to 2"),
    "grid of nothing": (dict(grid=lambda _: None), "the grid's function returned NoneType"),
    "grid number": (dict(grid=3), "grid is 3"),
    "grid text": (dict(grid="1 0", num_inference_steps=None), "runs from 1 to 0"),
    "adapter weight": (dict(adapters={"x": 1.0}), "no adapter named 'x'"),
    "adapters number": (dict(adapters=3), "adapters are 3"),
    "by position": (None, "got 3 values without a name"),
    "steps=": (dict(steps=3), "did you mean 'num_inference_steps'"),
    "an unknown word": (dict(clip_skip=3), "got 'clip_skip', which is not an argument; it takes"),
}


@pytest.mark.parametrize("name", GENERATION)
def test_what_no_image_comes_of_is_refused_by_name(tiny_pipe, name):
    given, words = GENERATION[name]
    if "tensor_inputs" in name:
        given = {**given, "callback_on_step_end": lambda *_: None}
    call = (lambda: draw(tiny_pipe, **given)) if given else (lambda: tiny_pipe("a", 32, 32))
    refused(call, words)


LATENTS = {
    "meta": (lambda x: x.to("meta"), "latents are of type"),
    "sparse": (lambda x: x.to_sparse(), "latents are of type"),
    "complex": (lambda x: x.to(torch.complex64), "latents are of type"),
    "a text": (lambda _: "x", "latents are of type str"),
}


@pytest.mark.parametrize("name", LATENTS)
def test_noise_that_is_none_is_refused(tiny_pipe, noise, name):
    made, words = LATENTS[name]
    refused(lambda: draw(tiny_pipe, latents=made(noise), seed=None), words)


def test_a_grid_in_words_is_the_same_in_python(tiny_pipe):
    told = draw(tiny_pipe, grid="0 0.4 1").images
    assert torch.equal(told, draw(tiny_pipe, grid=[0, 0.4, 1]).images)


def test_a_blank_negative_prompt_is_none(tiny_pipe):
    assert torch.equal(draw(tiny_pipe, negative_prompt=" ").images, draw(tiny_pipe).images)


def test_one_text_is_one_prompt_for_its_field_too(tiny_pipe):
    assert len(tiny_pipe.encode_prompts("abc")[0]) == 1


OTHERS = {
    "strength": (lambda p: p.edit(picture(), "a", strength="x"), "strength is 'x'"),
    "invert": (lambda p: p.edit(picture(), "a", invert="yes"), "invert is 'yes'"),
    "edit positions": (lambda p: p.edit(picture(), "a", 0.5), "3 values without a name"),
    "trajectory": (lambda p: p.trajectory("a", output_type="pt"), "does not use output_type"),
    "limit": (lambda p: p.limit_memory("2GB"), "size is '2GB'"),
    "negative limit": (lambda p: p.limit_memory(-1), "size is -1"),
    "forecast": (lambda p: p.forecast("2"), "images is '2'"),
    "decode kind": (lambda p: p.decode(torch.zeros(1, 4, 4, 4), "tiff"), "output_type is 'tiff'"),
    "decode shape": (lambda p: p.decode(torch.zeros(4, 4, 4)), "latents have shape"),
    "shard": (lambda p: p.save_pretrained("x", max_shard_size="abc"), "max_shard_size is 'abc'"),
    "shards": (lambda p: p.save_pretrained("x", max_shard_size=0), "max_shard_size is 0"),
    "variant": (lambda p: p.save_pretrained("x", variant="a/b"), "variant is 'a/b'"),
    "device": (lambda p: p.to("cuda:99"), "no device 'cuda:99'"),
    "from_pipe": (lambda p: type(p).from_pipe("x"), "from_pipe got str"),
    "swapped parts": (lambda p: type(p)(p.processor, p.model), "model is of type"),
    "no model": (lambda p: type(p)(None, p.processor), "model is of type NoneType"),
    "vae of another kind": (lambda p: type(p)(p.model, p.processor, p.model), "vae is of type"),
    "callback": (lambda p: draw(p, callback_on_step_end="x"), "callback_on_step_end is str"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_methods_refuse_by_name_and_write_nothing(tiny_pipe, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, words = OTHERS[name]
    refused(lambda: call(tiny_pipe), words)
    assert not list(tmp_path.iterdir())


LOADED = {
    "no name": (dict(), None, "the model's name is None"),
    "a number": (dict(), 3, "the model's name is 3"),
    "empty": (dict(), "", "the model's name is ''"),
    "a text as model": (dict(model="x"), ..., "model is of type str"),
    "a text as processor": (dict(processor="x"), ..., "processor is of type str"),
    "a number as vae": (dict(vae=3), ..., "vae is 3"),
    "subfolder": (dict(subfolder=3), ..., "subfolder is 3"),
    "attention": (dict(attn_implementation="someone/kernel"), ..., "attn_implementation is"),
    "the other family": (dict(), "janusflow/scenes-pro", "holds a Janus-Pro"),
}


@pytest.mark.parametrize("name", LOADED)
def test_loading_refuses_by_name(tiny_folder, name):
    given, where, words = LOADED[name]
    where = tiny_folder if where is ... else where
    refused(lambda: JanusFlowPipeline.from_pretrained(where, **given), words)


def test_a_dtype_in_words_moves_a_pipeline(tiny_folder):
    assert JanusFlowPipeline.from_pretrained(tiny_folder).to("bf16").model.dtype == torch.bfloat16


QUESTIONS = {
    "a number": (3, {}, "the question is 3"),
    "a dictionary": ({"role": "user", "content": "a"}, {}, "the question is"),
    "a number inside": (["a", 3], {}, "the question is 3"),
    "content": ([{"role": "user", "content": 3}], {}, "content of a message is 3"),
    "role": ([{"role": 3, "content": "a"}], {}, "the role is 3"),
    "image": ([{"role": "user", "content": "a", "image": 1}], {}, "did you mean 'images'"),
    "a part": (
        [{"role": "user", "content": [{"type": "image", "base64": "a"}]}],
        {},
        "a part of type 'image' got 'base64'",
    ),
    "flat images": (["a", "b"], dict(images=[picture(), picture()]), "a list of images for each"),
    "too few lists": (["a", "b"], dict(images=[[picture()]]), "1 lists of images came for 2"),
    "configuration": ("a", dict(generation_config={"a": 1}), "generation_config is of type dict"),
    "outputs": ("a", dict(return_dict_in_generate=True), "'return_dict_in_generate'"),
    "assistant": ("a", dict(assistant_model=1), "'assistant_model'"),
    "guidance": ("a", dict(guidance_scale=2.0), "'guidance_scale'"),
    "length": ("a", dict(max_new_tokens="5"), "max_new_tokens is '5'"),
    "huge length": ("a", dict(max_new_tokens=10**9), "max_new_tokens is 1000000000"),
    "temperature": ("a", dict(temperature=0.5), "give do_sample=True with it"),
    "streamer": ("a", dict(stream=True, streamer=1), "leave out streamer or stream"),
    "generator": ("a", dict(generator=1), "answers draw their tokens from seed="),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_what_cannot_be_asked_is_refused_by_name(tiny_pipe, name):
    question, given, words = QUESTIONS[name]
    refused(lambda: tiny_pipe.chat(question, **given), words)


def test_a_conversation_takes_one_image_and_no_blank_question(tiny_pipe):
    image = picture()
    told = tiny_pipe.conversation([image]).ask("what?", max_new_tokens=2)
    for kind in (image, np.asarray(image), np.asarray(image)[None]):
        assert tiny_pipe.conversation(kind).ask("what?", max_new_tokens=2) == told
    tiny_pipe.conversation(None).ask("what?", max_new_tokens=1)
    refused(lambda: tiny_pipe.conversation().ask(" "), "the question is ' '")
    refused(lambda: tiny_pipe.conversation().ask(3), "the question is 3")


def test_settings_that_greedy_answers_allow_are_taken(tiny_pipe):
    plain = tiny_pipe.chat("what?", max_new_tokens=4)
    assert tiny_pipe.chat("what?", max_new_tokens=np.int64(4), temperature=0) == plain
    assert tiny_pipe.chat(np.array(["what?"]), max_new_tokens=4) == [plain]
    tiny_pipe.chat("what?", max_new_tokens=4, stop_strings=["a"])


def test_a_length_in_a_generation_configuration_is_no_longer_than_it_says(tiny_pipe):
    inputs = tiny_pipe.processor("what?")["input_ids"].shape[1]
    config = GenerationConfig(max_length=inputs + 3)
    chosen = tiny_pipe._settings("chat", {"generation_config": config})
    assert chosen["generation_config"].max_new_tokens is None


def test_forward_refuses_a_misspelt_keyword(tiny_pipe):
    inputs = tiny_pipe.processor("what?")
    refused(lambda: tiny_pipe.model(**inputs, labls=3), "did you mean 'labels'")
    refused(lambda: tiny_pipe.model(), "input_ids and inputs_embeds")
    tiny_pipe.model(**inputs, use_cache=False, num_items_in_batch=1, output_hidden_states=True)


def test_a_token_without_a_row_is_refused_and_added_ones_are_saved(tiny_folder, tmp_path):
    pipe = JanusFlowPipeline.from_pretrained(tiny_folder)
    rows = pipe.model.config.language_config.vocab_size
    new = [f"<new{i}>" for i in range(rows - len(pipe.processor.tokenizer) + 1)]
    pipe.processor.tokenizer.add_tokens(new)
    for call in (lambda: draw(pipe, new[-1]), lambda: pipe.chat(new[-1])):
        refused(call, "resize_token_embeddings")
    pipe.model.resize_token_embeddings(len(pipe.processor.tokenizer))
    pipe.save_pretrained(tmp_path)
    again = JanusFlowPipeline.from_pretrained(tmp_path)
    assert again.processor.ids(new[-1])[-1] == len(pipe.processor.tokenizer) - 1
    assert torch.equal(draw(again, new[-1]).images, draw(pipe, new[-1]).images)


@pytest.mark.parametrize("part", ["model", "processor"])
def test_a_part_saved_into_a_checked_folder_leaves_it_readable(tiny_folder, tmp_path, part):
    pipe = JanusFlowPipeline.from_pretrained(tiny_folder)
    pipe.save_pretrained(tmp_path)
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  config.json\n")
    refused(lambda: JanusFlowPipeline.from_pretrained(tmp_path), "SHA256SUMS")
    getattr(pipe, part).save_pretrained(tmp_path)
    JanusFlowPipeline.from_pretrained(tmp_path)


@pytest.mark.parametrize("value", ["x", [1.0], 0, -1])
def test_an_autoencoder_with_no_scale_is_refused_on_loading(tiny_folder, tmp_path, value):
    JanusFlowPipeline.from_pretrained(tiny_folder).save_pretrained(tmp_path)
    path = tmp_path / "vae" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"scaling_factor": value}))
    refused(lambda: JanusFlowPipeline.from_pretrained(tmp_path), "scaling_factor of")


def test_the_published_examples_door_of_transformers_loads_the_model(tiny_folder):
    from transformers import AutoModelForCausalLM

    assert isinstance(AutoModelForCausalLM.from_pretrained(tiny_folder), JanusFlowModel)


def test_a_streamer_of_the_callers_hears_an_answer(tiny_pipe):
    class Heard(TextStreamer):
        text = ""

        def on_finalized_text(self, text, stream_end=False):  # noqa: ARG002
            self.text += text

    heard = Heard(tiny_pipe.processor.tokenizer, skip_prompt=True)
    tiny_pipe.chat("what?", streamer=heard, max_new_tokens=3)
    assert heard.text


def test_an_autoencoder_that_is_put_in_place_has_to_fit(tiny_pipe):
    small = AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, latent_channels=3)
    before = tiny_pipe.vae
    refused(lambda: setattr(tiny_pipe, "vae", small), "the autoencoder makes 3 channels")
    refused(lambda: tiny_pipe.register_modules(vae=small), "the autoencoder makes 3 channels")
    assert tiny_pipe.vae is before


def test_a_folder_to_save_in_has_a_name(tiny_pipe):
    for name in ("", "  ", None, 5):
        refused(lambda name=name: tiny_pipe.save_pretrained(name), "the folder to save in is")


@pytest.mark.parametrize(
    ("name", "function", "what"),
    [
        ("guidance_scale", lambda cond, _: cond, r"rule is called with \(cond, uncond, t\)"),
        ("grid", lambda: [0, 1], r"grid is called with \(steps\) and takes \(\)"),
        ("verifier", lambda images: [0.0] * len(images), r"with \(images, prompts\)"),
        ("callback_on_step_end", lambda _, __: {}, r"\(pipe, step, t, tensors\) and takes"),
    ],
)
def test_functions_that_take_other_arguments_are_refused_before_the_network_runs(
    tiny_pipe, name, function, what
):
    with pytest.raises(TypeError, match=what):
        tiny_pipe("a star", num_inference_steps=2, best_of=2, **{name: function})


def test_arrays_of_no_dimension_are_prompts_and_times_that_are_no_numbers_are_named(tiny_pipe):
    told = tiny_pipe(np.array("a star"), num_inference_steps=1, seed=0, output_type="np").images
    same = tiny_pipe("a star", num_inference_steps=1, seed=0, output_type="np").images
    assert np.array_equal(told, same)
    with pytest.raises(TypeError, match=r"grid is \[0, 'a', 1\]; expected times from 0 to 1"):
        tiny_pipe("a star", grid=[0, "a", 1])


def test_a_grid_that_ends_amid_noise_is_warned_of_unless_latents_are_wanted(tiny_pipe):
    with pytest.warns(UserWarning, match=r"the grid ends at 0.5, where the state is still partly"):
        tiny_pipe("a star", grid=[0, 0.5])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        tiny_pipe("a star", grid=[0, 0.5], output_type="latent")
