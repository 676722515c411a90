"""A small model and three images, as alignment sees them, and a finished training."""

import pytest
import torch
from smoke_runs import trained_recipe

from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.janusflow.processing import JanusFlowProcessor
from janusflow.scenes.patches import pixels
from janusflow.scenes.shapes import render_batch
from janusflow.scenes.world import scene
from janusflow.training.alignment.teachers import View
from janusflow.training.recipes import RECIPES


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = JanusFlowModel(RECIPES["scenes-smoke"].config(vocab_size=20))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.08)
    return model


@pytest.fixture(scope="module")
def view():
    objects = [scene("test", i).objects for i in range(3)]
    noise, data = torch.randn(2, 3, 16, 12, 12, generator=torch.Generator().manual_seed(0))
    return View(
        t=torch.tensor([0.1, 0.5, 0.95]),
        noise=noise,
        data=data,
        pixel_values=pixels(render_batch(objects)),
        objects=objects,
        uniform=torch.tensor([0.0, 0.5, 0.9]),
        features=torch.randn(3, 36, 7),
        hidden_of=_hidden_of,
    )


def _hidden_of(model, x, t, block):
    prompt = model.encode_prompt(torch.tensor([[1, 2, 3]]))
    return model.velocity(x, t, prompt, return_hidden=block)[1]


@pytest.fixture(scope="module")
def processor(tiny_folder):
    return JanusFlowProcessor.from_pretrained(tiny_folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of eight steps with a checkpoint at every second."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    trained_recipe(out)
    return out
