"""The model in the box: small, found without a network, and better than chance by far."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from janusflow import JanusFlowModel, JanusFlowPipeline
from janusflow.scenes import edits
from janusflow.scenes.questions import question
from janusflow.scenes.scorer import score
from janusflow.scenes.shapes import render
from janusflow.scenes.world import prompt
from janusflow.utils.hub import PACKAGED


@pytest.fixture(scope="module")
def pipe():
    pipe = JanusFlowPipeline.from_pretrained("janusflow/scenes")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_its_files_take_at_most_16_megabytes():
    folder = PACKAGED["janusflow/scenes"]
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 16 * 2**20
    assert not any(path.suffix in (".bin", ".pt", ".pth", ".pkl", ".py") for path in files)


def test_it_is_a_quarter_of_the_published_geometry():
    config = JanusFlowModel.from_pretrained("janusflow/scenes").config
    assert config.vision.image_size == 384 // 4 and config.vision.tokens == 576 // 16


def test_it_draws_what_is_asked_far_more_often_than_chance(pipe):
    asked = [prompt("test", "single_object", i) for i in range(12)]
    seeds = [torch.Generator().manual_seed(i) for i in range(12)]
    texts = [one.text for one in asked]
    images = pipe(texts, generator=seeds, guidance_scale=3.0, grid="shifted").images
    right = [score(np.asarray(i), one).strict for i, one in zip(images, asked, strict=True)]
    assert sum(right) >= 6  # chance is one in eight shapes


def test_it_answers_far_better_than_chance(pipe):
    asked = [question("test", i, "color") for i in range(24)]
    answers = [pipe.chat(q.text, [render(q.scene.objects)]) for q in asked]
    assert sum(a == q.answer for a, q in zip(answers, asked, strict=True)) >= 16  # one in ten


def test_the_few_step_model_spends_as_many_evaluations_as_steps_and_is_mostly_right():
    """Four evaluations without guidance; its card says 0.90 of single objects."""
    pipe = JanusFlowPipeline.from_pretrained("janusflow/scenes-few")
    pipe.set_progress_bar_config(disable=True)
    asked = [prompt("test", "single_object", i) for i in range(24)]
    noise = [torch.Generator().manual_seed(i) for i in range(24)]
    out = pipe([one.text for one in asked], num_inference_steps=4, generator=noise)
    right = [score(np.asarray(x), one).strict for x, one in zip(out.images, asked, strict=True)]
    assert out.calls == 4 and sum(right) >= 18


def test_the_editor_does_mostly_what_it_is_told():
    """Its card has the score; an image made without the source would be right in almost none."""
    pipe = JanusFlowPipeline.from_pretrained("janusflow/scenes-edit")
    pipe.set_progress_bar_config(disable=True)
    asked = [edits.edit("test", i, list(edits.KINDS)[i % 4]) for i in range(16)]
    before = [Image.fromarray(render(one.before)) for one in asked]
    how = dict(sampler="abm", num_inference_steps=12, guidance_scale=1.5, seed=0)
    after = pipe([one.text for one in asked], image=before, **how).images
    assert sum(edits.judge(np.asarray(x), y) for x, y in zip(after, asked, strict=True)) >= 7


def test_the_model_of_emoji_draws_a_red_heart():
    pipe = JanusFlowPipeline.from_pretrained("janusflow/emoji")
    pipe.set_progress_bar_config(disable=True)
    out = pipe("a red heart", guidance_scale=2.0, seed=0)
    red, green, _ = np.asarray(out.images[0])[20:40, 20:40].mean((0, 1))
    assert red > 180 > 120 > green
