"""Reconstruction alignment: images whose prompts show themselves."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from janusflow.training import config, init_checkpoint, loop, objectives
from janusflow.training.config_stages import ALL_BUT_VISION

CHOICE = {
    "training.steps": 30,
    "training.batch": 6,
    "training.mixture": {"generation": 6},
    "training.trainable": list(ALL_BUT_VISION),
    "training.lr": 3e-2,
    "training.optimizer": "muon",
    "training.warmup": 1,
    "training.cond_dropout": 0.0,
    "objective.name": "reca",
}


class SameImages:
    """One batch in every step."""

    def __init__(self, folder):
        self.samples = init_checkpoint.batches(folder).images(range(6))

    def draw(self, *_, **__):
        return list(self.samples)


def trainer(folder, **changes):
    settings = config.changed(config.of_stage("tune"), CHOICE | changes)
    return loop.trainer_of(settings, folder, SameImages(folder))


def test_a_prompt_shows_the_image_that_is_to_be_made(tiny_folder):
    made = trainer(tiny_folder)
    samples = made.data.draw(0, 0, 1, {})
    shown = made.objective.main.prepare(samples, range(6), 0)
    for before, after in zip(samples, shown, strict=True):
        assert torch.equal(after.shown, before.pixel_values)
        assert torch.equal(after.latents, before.latents)
        assert after.image_token_mask.sum() > 1
        assert not torch.equal(after.input_ids, before.input_ids)


def test_a_share_of_the_samples_keeps_its_captions_the_same_ones_in_every_run(tiny_folder):
    main = trainer(tiny_folder, **{"objective.share": 0.5}).objective.main
    samples = init_checkpoint.batches(tiny_folder).images(range(60))
    chosen = [s.shown is not None for s in main.prepare(samples, range(60), 3)]
    assert 15 < sum(chosen) < 45
    later = [s.shown is not None for s in main.prepare(samples[30:], range(30, 60), 3)]
    assert later == chosen[30:]


def test_the_loss_falls(tiny_folder):
    made = trainer(tiny_folder)
    values = [made.step()["loss"] for _ in range(30)]
    assert sum(values[-5:]) < 0.85 * sum(values[:5])


@pytest.mark.parametrize(("name", "value"), [("instruction", " "), ("share", 0.0), ("share", 2.0)])
def test_what_makes_no_reconstruction_is_refused(tiny_folder, name, value):
    with pytest.raises(ValueError, match="expected a text, and a share"):
        trainer(tiny_folder, **{f"objective.{name}": value})


def test_images_that_were_left_out_for_a_cache_are_missed_by_name(tiny_folder):
    main = trainer(tiny_folder).objective.main
    bare = [replace(s, pixel_values=None) for s in SameImages(Path(tiny_folder)).samples]
    with pytest.raises(ValueError, match=r"scene 0.*without a cache"):
        main.prepare(bare, range(6), 0)
    assert "reca" in objectives.OBJECTIVES
