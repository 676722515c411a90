"""A model that is a flow map: so many evaluations as asked, by the pipeline and by samplers."""

import shutil

import numpy as np
import pytest
import torch

import samplers
from janusflow import JanusFlowPipeline
from janusflow.pipelines.flow_maps import FlowMapGrid

GRID = FlowMapGrid((0, 0.1, 0.3, 0.6, 1), (1, 2, 4))


@pytest.fixture(scope="module")
def folder(tiny_folder, tmp_path_factory):
    here = tmp_path_factory.mktemp("map") / "model"
    shutil.copytree(tiny_folder, here)
    GRID.save(here / "flow-map.json")
    return here


@pytest.fixture(scope="module")
def pipe(folder):
    found = JanusFlowPipeline.from_pretrained(folder)
    found.set_progress_bar_config(disable=True)
    return found


@pytest.mark.parametrize("evaluations", [1, 2, 4])
def test_steps_are_evaluations(pipe, evaluations):
    assert pipe("a star", num_inference_steps=evaluations).calls == evaluations


def test_it_takes_the_most_unless_told_and_few_for_a_draft(pipe):
    assert pipe("a star").calls == 4
    assert pipe("a star", quality="draft").calls == 2


def test_the_pipeline_jumps_as_samplers_do(pipe):
    noise = torch.randn(2, 16, 12, 12, generator=torch.Generator().manual_seed(0))
    u = samplers.count(pipe.flow_map("a star", num_images_per_prompt=2))
    with torch.no_grad():
        x = samplers.sample(u, noise, [0, 0.3, 1], "jump")
    how = dict(num_images_per_prompt=2, num_inference_steps=2, output_type="latent")
    assert u.calls == 2
    assert torch.allclose(pipe("a star", latents=noise, **how).images, x, atol=1e-5)


def test_its_trajectory_shows_where_it_jumps_to_the_data(pipe):
    noise = torch.randn(1, 16, 12, 12, generator=torch.Generator().manual_seed(0))
    found = pipe.trajectory("a star", latents=noise)
    u = pipe.flow_map("a star")
    with torch.no_grad():
        first, last = (samplers.sample(u, noise, ts, "jump") for ts in ([0, 1], GRID.times))
    shown = [np.asarray(images[0], float) for images in found.frames]
    assert len(shown) == 4
    for image, x in ((shown[0], first), (shown[-1], last)):
        assert abs(image - np.asarray(pipe.decode(x)[0], float)).max() <= 1


def test_its_times_are_saved_with_it(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    assert JanusFlowPipeline.from_pretrained(tmp_path).grids["flow_map"] == GRID


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"num_inference_steps": 3}, "trained for 1, 2, 4 evaluations"),
        ({"guidance_scale": 5.0}, "guidance 2 in its weights"),
        ({"negative_prompt": "a ring"}, "does not use negative_prompt"),
    ],
)
def test_what_a_flow_map_cannot_do_is_refused(pipe, given, told):
    with pytest.raises(ValueError, match=told):
        pipe("a star", **given)


def test_another_model_says_how_to_get_a_map(tiny_pipe):
    with pytest.raises(ValueError, match="janusflow distill"):
        tiny_pipe.flow_map("a star")


def test_the_command_line_spends_as_many(janusflow, folder, tmp_path):
    out = tmp_path / "a.png"
    words = ["generate", "a star", "-o", out, "--model", folder, "--steps", 2, "--json"]
    code, text, err = janusflow(*words)
    assert code == 0, err
    assert '"calls": 2' in text or "'calls': 2" in text


def test_a_compiled_flow_map_jumps_to_the_same_images(folder):
    fresh = JanusFlowPipeline.from_pretrained(folder)
    fresh.set_progress_bar_config(disable=True)
    how = dict(seed=0, output_type="pt", num_inference_steps=2)
    before = fresh(["a star", "a red ring"], **how).images
    fresh.compile(backend="eager")  # what is traced, without the minutes of a compiler
    after = fresh(["a star", "a red ring"], **how).images
    assert fresh._compiled._shapes
    assert abs(before - after).max() < 1e-4
    torch.compiler.reset()
