"""What is no prompt, noise or folder is refused by its name, and not in an attribute's words."""

import pytest
import torch

import samplers


def test_generate_without_a_prompt_says_so(tiny_pipe):
    with pytest.raises(ValueError, match="generate got no prompt; pass on what the processor"):
        tiny_pipe.model.generate()


def test_a_text_in_place_of_ids_is_refused(tiny_pipe):
    for call in (tiny_pipe.model, tiny_pipe.model.generate):
        with pytest.raises(TypeError, match="input_ids are of type str; expected a tensor"):
            call(input_ids="a red circle")


def test_whole_numbers_are_no_noise(tiny_pipe):
    shape = tiny_pipe.prepare_latents(1, None, None, None).shape
    with pytest.raises(TypeError, match=r"latents are torch\.int64; expected noise"):
        tiny_pipe("a red circle", latents=torch.zeros(shape, dtype=torch.long))


def test_a_model_is_not_saved_under_a_file_s_name(tiny_pipe, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file' is a file; name a folder"):
        tiny_pipe.save_pretrained(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_configuration_that_is_missing_is_not_the_published_one(tmp_path):
    from janusflow import JanusFlowConfig

    with pytest.raises(ValueError, match=r"lacks config\.json; take it from the checkpoint"):
        JanusFlowConfig.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"gone' lacks config\.json"):
        JanusFlowConfig.from_pretrained(tmp_path, subfolder="gone")


def test_a_training_run_given_as_a_model_says_how_to_export_it(janusflow, tmp_path):
    (tmp_path / "settings.yaml").write_text("")
    code, _, err = janusflow("generate", "a star", "--model", str(tmp_path), "-o", "never.png")
    assert code == 2 and f"janusflow train --out {tmp_path} --export my-model" in err


def test_no_subfolder_is_the_folder_itself(tiny_folder):
    from janusflow import JanusFlowConfig

    assert JanusFlowConfig.from_pretrained(tiny_folder, subfolder=None).model_type


def test_times_of_training_steps_and_texts_are_no_grid():
    noise = torch.ones(2, 3)
    with pytest.raises(ValueError, match="give times with noise at 0 and data at 1"):
        samplers.sample(lambda x, _t: -x, noise, [1000, 500, 0], "euler")
    with pytest.raises(TypeError, match="the times are '4'; pass a number of evaluations"):
        samplers.sample(lambda x, _t: -x, noise, "4")


def test_a_network_of_other_arguments_is_named():
    with pytest.raises(TypeError, match=r"the velocity is called with \(x, t\) and takes \(input"):
        samplers.sample(torch.nn.Linear(3, 3), torch.ones(2, 3), 4, "euler")


@pytest.mark.parametrize("name", [5, "../a.safetensors", "a.bin"])
def test_a_weight_file_of_another_kind_is_refused_by_name(tiny_pipe, tmp_path, name):
    with pytest.raises(ValueError, match=r"weight_name is .*; expected a .safetensors file"):
        tiny_pipe.load_lora_weights(tmp_path, weight_name=name)
