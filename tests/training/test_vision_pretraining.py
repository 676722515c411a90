"""The vision encoder's first training: the loss of captions, and that it learns."""

import math
from dataclasses import replace

import torch

from janusflow.scenes import patches
from janusflow.scenes.shapes import Obj
from janusflow.training import vision_pretraining
from janusflow.training.recipes import RECIPES
from janusflow.training.vision_pretraining import (
    Heads,
    pretrain,
    score,
    sigmoid_contrastive,
    word_ids,
)

RECIPE = replace(RECIPES["scenes-smoke"], vision_batch=16)


def test_the_contrastive_loss_is_a_sigmoid_for_every_pair():
    pictures, texts = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    same = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 1, 1]]).bool()
    got = sigmoid_contrastive(pictures, texts, same, 3.0, -1.0)
    for i in range(3):
        expected = 0.0
        for j in range(3):
            dot = float(pictures[i] @ texts[j] / pictures[i].norm() / texts[j].norm())
            sign = 1 if same[i, j] else -1
            expected += math.log1p(math.exp(-sign * (3.0 * dot - 1.0)))
        assert abs(got[i].item() - expected) < 1e-5


def test_padding_does_not_change_a_caption():
    torch.manual_seed(0)
    heads = Heads(16).eval()
    alone = heads.caption(word_ids(["a red circle"]))
    beside = heads.caption(word_ids(["a red circle", "two blue squares and a green ring"]))[:1]
    torch.testing.assert_close(alone, beside)


def test_every_caption_is_made_of_known_words():
    for step in range(20):
        word_ids(patches.batch(step, 16, "test")[2])


def test_training_lowers_the_loss_of_scenes_it_has_not_seen():
    short = score(RECIPE, *pretrain(replace(RECIPE, vision_steps=2)), batches=4)
    longer = score(RECIPE, *pretrain(replace(RECIPE, vision_steps=40)), batches=4)
    assert longer["loss"] < 0.8 * short["loss"]


def test_a_patch_must_say_where_in_the_image_its_object_is():
    objects = (Obj("circle", "red", 30, 70, 32),)
    target = torch.from_numpy(patches.targets(objects))[None]
    exact = torch.zeros(1, 36, patches.OUTPUTS)
    kinds = target[..., :2].long()
    exact.scatter_(2, kinds[..., :1], 50.0)
    exact.scatter_(2, kinds[..., 1:] + patches.SHAPE_CLASSES, 50.0)
    exact[..., -4:-2] = target[..., 2:]
    exact[..., -2:] = torch.tensor([30, 70]) / patches.PATCH
    elsewhere = exact.clone()
    elsewhere[..., -2] += 2  # patches to the right
    assert patches.loss(exact, target)[0] < 1e-6
    assert patches.loss(elsewhere, target)[0] > 0.5


def test_without_weight_the_captions_are_not_looked_at():
    recipe = replace(RECIPE, vision_contrastive=0.0, vision_steps=1)
    assert "captions" not in score(recipe, *pretrain(recipe), batches=1)


def test_training_goes_on_from_where_it_was_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr(vision_pretraining, "KEEP", 3)
    recipe, kept = replace(RECIPE, vision_steps=5), tmp_path / "kept.safetensors"
    whole, _ = pretrain(recipe)
    pretrain(recipe, kept)  # leaves the state after step 3
    monkeypatch.setattr(patches, "batch", later(patches.batch, 3))
    again, _ = pretrain(recipe, kept)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def later(batch, first: int):
    """`batch`, for no step before the first."""

    def asked(step: int, count: int):
        assert step >= first, f"step {step} was drawn again"
        return batch(step, count)

    return asked
