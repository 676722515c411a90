"""Words and calls of other libraries: they work, or the sentence says ours."""

import copy
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

FEW = dict(num_inference_steps=2, seed=0, output_type="latent")

WORDS = {
    "steps": "num_inference_steps",
    "cfg": "guidance_scale",
    "timesteps": "grid=",
    "prompt_embeds": "prompt as text",
    "strength": r"pipe\.edit",
    "callback": "callback_on_step_end",
    "cross_attention_kwargs": "adapters=",
    "eta": "sampler",
}


@pytest.mark.parametrize("word", WORDS)
def test_a_word_of_another_pipeline_is_answered_with_ours(tiny_pipe, word):
    with pytest.raises(TypeError, match=f"got '{word}', which is not an argument; .*{WORDS[word]}"):
        tiny_pipe("a star", **{word: 1})


def test_editing_takes_its_own_words(tiny_pipe):
    image = Image.new("RGB", (96, 96), "red")
    few = dict(num_inference_steps=2, seed=0, output_type="latent")
    assert len(tiny_pipe.edit(image, "a star", strength=0.5, **few).images) == 1


def test_weights_of_guidance_may_be_a_list(tiny_pipe):
    texts, weights = ["a star", "a ring"], [1.5, 3.0]
    one, two, three = (
        tiny_pipe(texts, guidance_scale=kind(weights), **FEW).images
        for kind in (list, np.array, torch.tensor)
    )
    assert torch.equal(one, three) and torch.allclose(one, two, atol=1e-5)


def test_a_refused_component_changes_nothing(tiny_pipe):
    pipe = copy.copy(tiny_pipe)
    with pytest.raises(AttributeError, match="has no scheduler"):
        pipe.register_modules(scheduler=None)
    with pytest.raises(TypeError, match="register_modules got 'unet', which is not an argument"):
        pipe.register_modules(unet=None)
    assert list(pipe.to("cpu").components) == ["model", "processor", "vae"]


def test_what_changes_no_adapter_is_told(tiny_pipe):
    with pytest.warns(UserWarning, match="unfuse_lora changes nothing"):
        tiny_pipe.unfuse_lora()
    with pytest.raises(ValueError, match="no adapter is named; disable_lora"):
        tiny_pipe.set_adapters([])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny_pipe.unload_lora_weights()


def test_an_empty_list_of_images_is_none_for_several_questions_too(tiny_pipe):
    told = tiny_pipe.chat(["what is it?"] * 2, max_new_tokens=2)
    assert tiny_pipe.chat(["what is it?"] * 2, images=[], max_new_tokens=2) == told


@pytest.mark.parametrize(
    ("given", "meant"), [("image", "images"), ("stop", "stop_strings"), ("max_tokens", "max_new_")]
)
def test_a_word_of_another_chat_is_answered_with_ours(tiny_pipe, given, meant):
    with pytest.raises(TypeError, match=f"got '{given}', .* did you mean '{meant}"):
        tiny_pipe.chat("what is it?", **{given: 3})


def test_a_tensor_that_no_callback_gets_is_refused_without_a_callback_too(tiny_pipe):
    with pytest.raises(ValueError, match="tensor_inputs holds 'latent'; this pipeline gives"):
        tiny_pipe("a", callback_on_step_end_tensor_inputs=["latent"], num_inference_steps=1)


def test_a_frozen_array_of_noise_is_taken_without_a_warning(tiny_pipe):
    noise = np.zeros((1, 16, 12, 12), "float32")
    noise.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tiny_pipe("a", latents=noise, num_inference_steps=1).images
