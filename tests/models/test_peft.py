"""Adapters of peft's own classes, in and out."""

import copy

import pytest
import torch
from PIL import Image

from janusflow import JanusFlowModel, JanusFlowPipeline, JanusFlowProcessor

peft = pytest.importorskip("peft")


@pytest.fixture
def model(tiny_folder):
    return JanusFlowModel.from_pretrained(tiny_folder).eval()


@pytest.fixture(scope="module")
def inputs(tiny_folder):
    images = [Image.new("RGB", (96, 96), color) for color in ("red", "blue")]
    processor = JanusFlowProcessor.from_pretrained(tiny_folder)
    return processor(["describe the picture."] * 2, [[image] for image in images])


def test_peft_adapts_and_its_adapter_is_read_here(tiny_folder, model, inputs, tmp_path):
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"])
    adapted = peft.get_peft_model(model, config)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    labels = inputs["input_ids"].masked_fill(inputs["image_token_mask"], -100)
    adapted(**inputs, labels=labels).loss.backward()
    assert adapted.generate(**inputs, max_new_tokens=3).shape[0] == 2
    adapted.save_pretrained(tmp_path)
    pipe = JanusFlowPipeline.from_pretrained(tiny_folder)
    pipe.load_lora_weights(tmp_path)
    with torch.no_grad():
        expected = adapted.eval()(**inputs).logits
        assert torch.allclose(pipe.model(**inputs).logits, expected, atol=1e-5)
    pipe.model.gradient_checkpointing_enable()
    assert pipe.model.is_gradient_checkpointing


@pytest.mark.parametrize(
    "words", [{"target_modules": ["embed_tokens"]}, {"trainable_token_indices": [5]}]
)
def test_peft_adapts_words_too(words, model, inputs):
    config = peft.LoraConfig(**{"task_type": "CAUSAL_LM", "target_modules": ["q_proj"]} | words)
    adapted = peft.get_peft_model(copy.deepcopy(model), config)
    assert torch.equal(adapted(**inputs).logits, model(**inputs).logits)
