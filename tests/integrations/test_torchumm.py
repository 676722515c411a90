"""A backbone of TorchUMM gives the images and answers of the pipeline."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from janusflow.integrations import torchumm
from janusflow.integrations.torchumm import JanusFlowBackbone


@pytest.fixture(scope="module")
def backbone(tiny_folder):
    made = JanusFlowBackbone()
    made.load({"model_path": str(tiny_folder), "generation_cfg": {"num_inference_steps": 2}})
    return made


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (96, 96), (200, 30, 30)).save(tmp_path / "red.png")
    return tmp_path / "red.png"


def test_images_are_the_pipelines_and_are_saved(backbone, tiny_pipe, tmp_path):
    told = {"cfg_weight": 3.0, "parallel_size": 2, "seed": 5}
    made = backbone.generation("a star", str(tmp_path / "star.png"), told)
    noise = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    due = tiny_pipe(
        ["a star"] * 2, generator=noise, guidance_scale=3.0, num_inference_steps=2
    ).images
    assert np.array_equal(np.stack(made["images"]), np.stack(due))
    assert [Image.open(path).size for path in made["saved_paths"]] == [(96, 96)] * 2
    assert backbone.generation("a star")["saved_paths"] == []


def test_an_answer_is_the_pipelines(backbone, tiny_pipe, picture):
    told = backbone.understanding("what is it?", [str(picture)], [], {"max_new_tokens": 5})
    due = tiny_pipe.chat("what is it?", images=[Image.open(picture)], max_new_tokens=5)
    assert told == {"text": due}


def test_an_edit_is_the_pipelines(backbone, tiny_pipe, picture):
    settings = {"strength": 0.5, "num_inference_steps": 2}
    made = backbone.editing("a star", [str(picture)], None, settings)["image"]
    noise = torch.Generator().manual_seed(42)
    due = tiny_pipe.edit(Image.open(picture), "a star", generator=noise, **settings).images[0]
    assert np.array_equal(np.asarray(made), np.asarray(due))


def test_a_setting_that_nothing_takes_is_refused_by_name(backbone, picture):
    with pytest.raises(ValueError, match="'img_size', which janusflow does not take"):
        backbone.generation("a star", None, {"img_size": 384})
    with pytest.raises(ValueError, match="'janus_root'"):
        JanusFlowBackbone().load({"janus_root": "x"})
    with pytest.raises(ValueError, match="videos"):
        backbone.understanding("what?", [str(picture)], ["film.mp4"])


def test_it_registers_where_torchumm_is_installed(monkeypatch):
    known = {}
    registry = SimpleNamespace(register=lambda kind, name, made: known.update({(kind, name): made}))
    core = ModuleType("umm.core")
    core.registry = registry
    monkeypatch.setitem(sys.modules, "umm", ModuleType("umm"))
    monkeypatch.setitem(sys.modules, "umm.core", core)
    torchumm.register()
    assert known == {("backbone", "janusflow"): JanusFlowBackbone}


def test_without_torchumm_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "umm", None)
    with pytest.raises(ImportError, match="clone AIFrontierLab/TorchUMM"):
        torchumm.register()
