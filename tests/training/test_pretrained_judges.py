"""Rewards by others' networks, here tiny ones with random weights, and by the autoencoder."""

import json
import string

import numpy as np
import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from janusflow.models import latents
from janusflow.scenes.patches import pixels
from janusflow.scenes.shapes import render
from janusflow.scenes.world import generator, prompt, realise
from janusflow.training import rewards
from janusflow.training.rewards import Graded

BLOCKS = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
EYES = dict(image_size=16, patch_size=8)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    words = [*string.ascii_lowercase, *(f"{c}</w>" for c in string.ascii_lowercase)]
    vocab = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=32)
    side = {"height": 16, "width": 16}
    eyes = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=side)
    CLIPProcessor(eyes, tokenizer).save_pretrained(folder)
    ends = dict(bos_token_id=52, eos_token_id=53, pad_token_id=53)
    text = dict(BLOCKS, vocab_size=len(vocab), max_position_embeddings=32, **ends)
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=BLOCKS | EYES, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    return folder


def classifier(folder, labels):
    config = ViTConfig(**BLOCKS, **EYES, num_labels=len(labels), id2label=dict(enumerate(labels)))
    torch.manual_seed(0)
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def graded():
    asked = [prompt("test", "color_attr", i) for i in range(3)]
    images = [render(realise(p, generator("test", 0)).objects) for p in asked]
    return Graded(pixels=np.stack(images), requests=asked)


def test_clip_gives_the_cosine_of_an_image_and_its_text(clip_folder, graded):
    found = rewards.find(f"clip:{clip_folder}")(graded)
    model, processor = CLIPModel.from_pretrained(clip_folder).eval(), None
    processor = CLIPProcessor.from_pretrained(clip_folder)
    texts = [one.text for one in graded.requests]
    inputs = processor(images=list(graded.pixels), text=texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        cosines = model(**inputs).logits_per_image.diagonal() / model.logit_scale.exp()
    assert torch.allclose(found, (1 + cosines) / 2, atol=1e-4)
    assert ((found > 0) & (found < 1)).all() and found.unique().numel() == 3


def test_it_adds_up_with_others(clip_folder, graded):
    both = rewards.find(f"0.5*clip:{clip_folder} + 0.5*strict")(graded)
    assert torch.allclose(both, 0.5 * rewards.find(f"clip:{clip_folder}")(graded) + 0.5)


@pytest.mark.parametrize("labels", [["aesthetic", "not_aesthetic"], ["score"]])
def test_a_classifier_says_how_an_image_looks(tmp_path, graded, labels):
    found = rewards.find(f"aesthetic:{classifier(tmp_path, labels)}")(graded)
    assert found.shape == (3,) and ((found >= 0) & (found <= 1)).all()


def test_what_judges_nothing_is_refused_in_a_sentence(tmp_path):
    cats = classifier(tmp_path / "cats", ["cat", "dog"])
    for text, told in (
        (f"aesthetic:{cats}", "tells cat, dog apart"),
        (f"clip:{cats}", "expected a CLIP or SigLIP"),
        ("clip:", "needs its weights"),
        ("clip:" + str(tmp_path / "nothing"), "nothing"),
        ("clap:x", "no reward named 'clap:x'"),
    ):
        with pytest.raises(ValueError, match=told):
            rewards.find(text)


def test_quality_is_one_at_the_autoencoders_best_and_falls_with_noise(tiny_pipe, graded):
    with torch.no_grad():
        z = latents.encode(tiny_pipe.vae, pixels(graded.pixels))
    quality, samples = rewards.find("quality"), graded.requests
    own = rewards.graded(tiny_pipe.vae, [Asked(one) for one in samples], z)
    noisy = rewards.graded(tiny_pipe.vae, [Asked(one) for one in samples], z + torch.randn_like(z))
    assert (quality(own) > 0.9).all()
    assert (quality(noisy) < quality(own) - 0.1).all()
    blank = Graded(pixels=np.full((1, 96, 96, 3), 244, np.uint8), requests=samples[:1])
    assert quality(blank).tolist() == [0.0]


class Asked:
    """A sample as rewards read it."""

    def __init__(self, request):
        self.request = request
