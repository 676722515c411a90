"""Images stay as they are while the model learns to answer."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.training import config, init_checkpoint, loop
from janusflow.training.recipes import RECIPES
from studies.vision_tuning import tune

RECIPE = RECIPES["scenes-smoke"]


def trainer(folder, **changes):
    own = {
        "training.batch": 6,
        "training.mixture": {"generation": 4, "understanding": 2},
        "alignment": "none",
        "training.lr": 1e-2,
        "training.warmup": 0,
    }
    chosen = config.changed(init_checkpoint.of_recipe(RECIPE), own | changes)
    return loop.trainer_of(chosen, folder, init_checkpoint.batches(folder, RECIPE))


def test_retain_starts_at_zero_and_measures_how_far_images_have_moved(tiny_folder):
    found = trainer(tiny_folder, objective="retain")
    first, second = found.step()["parts"], found.step()["parts"]
    assert first["retain"] < 1e-9 < second["retain"]
    assert first["next_token"] > 0


def test_retain_holds_the_velocity(tiny_folder):
    moved = {}
    for scale in (1e-6, 1e4):
        found = trainer(tiny_folder, **{"objective": "retain", "objective.scale": scale})
        moved[scale] = [found.step()["parts"]["retain"] for _ in range(4)][-1] / scale
    assert moved[1e4] < 0.5 * moved[1e-6]


def test_tuning_the_encoder_changes_nothing_else(tiny_folder, tmp_path):
    tune(str(tiny_folder), tmp_path, replace(RECIPE, vision_steps=2, vision_contrastive=0.0))
    before = load_file(tiny_folder / "model.safetensors")
    after = load_file(tmp_path / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("vision_und_enc_model.") for name in changed)
    assert (tmp_path / "vae").is_dir() and (tmp_path / "tokenizer.json").is_file()


def test_only_an_encoder_of_recipes_is_tuned(tiny_folder, tmp_path, monkeypatch):
    load = JanusFlowModel.from_pretrained

    def other(*words, **how):
        model = load(*words, **how)
        model.vision_und_enc_model = torch.nn.Identity()
        return model

    monkeypatch.setattr(JanusFlowModel, "from_pretrained", other)
    with pytest.raises(ValueError, match="is a Identity, and the SigLIP"):
        tune(str(tiny_folder), tmp_path, RECIPE)
