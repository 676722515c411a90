"""The network against the published code's outputs (float32, relative to the largest value)."""

import json

import pytest
import torch
from golden import DATA, golden_model, read_golden

from janusflow import JanusFlowConfig, JanusFlowModel

TENSORS, META = read_golden()
W = float(META["cfg_weight"])


@pytest.fixture(scope="module")
def model():
    return golden_model(META["config"], META["salt"])


@pytest.fixture(scope="module", autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def assert_matches(found: torch.Tensor, name: str) -> None:
    expected = TENSORS[name]
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def prompts(model):
    ids = TENSORS["gen.prompt_ids"][None, :-1]
    return model.encode_prompt(ids), model.encode_prompt(ids, unconditional=True)


def test_encoder_gives_the_published_features_and_time_embedding(model):
    features, times = model.vision_gen_enc_model(TENSORS["gen.z"], TENSORS["gen.t"] / 1000)
    assert_matches(features, "gen_enc.features")
    assert_matches(times.embedding, "gen_enc.time_embedding")


def test_decoder_gives_the_published_velocity(model):
    features, times = model.vision_gen_enc_model(TENSORS["gen.z"], TENSORS["gen.t"] / 1000)
    assert_matches(
        model.vision_gen_dec_model(TENSORS["gen_dec.input"], features, times), "gen_dec.velocity"
    )


def test_velocities_are_the_published_ones(model):
    cond, uncond = prompts(model)
    z, t = TENSORS["gen.z"], TENSORS["gen.t"] / 1000
    assert_matches(model.velocity(z, t, cond), "gen.velocity_conditional")
    assert_matches(model.velocity(z, t, uncond), "gen.velocity_unconditional")


def test_euler_trajectory_is_the_published_one(model):
    cond, uncond = prompts(model)
    x, steps = TENSORS["gen.z"], int(META["steps"])
    states = [x]
    for step in range(steps):
        t = torch.full((len(x),), step / steps)
        v = W * model.velocity(x, t, cond) + (1 - W) * model.velocity(x, t, uncond)
        x = x + v / steps
        states.append(x)
    assert_matches(torch.stack(states), "gen.euler_trajectory")


def test_vision_features_and_embeddings_are_the_published_ones(model):
    pixels, places = TENSORS["und.pixel_values"], TENSORS["und.images_seq_mask"].bool()
    assert_matches(model.vision_und_enc_model(pixels.flatten(0, 1)), "und.encoder_features")
    assert_matches(model.embed(TENSORS["und.input_ids"], pixels, places), "und.inputs_embeds")


def test_logits_and_greedy_answers_are_the_published_ones(model):
    inputs = dict(
        input_ids=TENSORS["und.input_ids"],
        attention_mask=TENSORS["und.attention_mask"],
        pixel_values=TENSORS["und.pixel_values"].flatten(0, 1),
        image_token_mask=TENSORS["und.images_seq_mask"].bool(),
    )
    assert_matches(model(**inputs).logits[:, -1], "und.logits_last")
    expected = TENSORS["und.greedy_tokens"]
    answers = model.generate(**inputs, max_new_tokens=expected.shape[1], do_sample=False)
    assert torch.equal(answers, expected)


def test_the_published_configuration_gives_exactly_the_published_tensors():
    manifest = json.loads((DATA / "janusflow-1.3b-manifest.json").read_text())
    with torch.device("meta"):
        model = JanusFlowModel(JanusFlowConfig(**manifest["config"]))
    found = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert found == dict(manifest["parameters"])
