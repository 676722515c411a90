"""The model in the box: small, found without a network, and better than chance by far."""

from pathlib import Path

import numpy as np
import pytest
import torch

from janusflow import JanusFlowModel, JanusFlowPipeline
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
