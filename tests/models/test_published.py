"""The configurations of the published models that the package carries."""

import json

import pytest
import torch
from golden import DATA
from transformers import JanusForConditionalGeneration

from janusflow import JanusFlowModel
from janusflow.models import published_configs


def parameters(name: str) -> int:
    config = published_configs.configuration(name)
    kind = JanusFlowModel if "JanusFlow" in name else JanusForConditionalGeneration
    with torch.device("meta"):
        return sum(p.numel() for p in kind(config).parameters())


def test_the_packaged_configuration_of_janusflow_is_the_hubs():
    manifest = json.loads((DATA / "janusflow-1.3b-manifest.json").read_text())
    folder = published_configs.folder("deepseek-ai/JanusFlow-1.3B")
    assert json.loads((folder / "config.json").read_text()) == manifest["config"]


@pytest.mark.parametrize(
    ("name", "millions"), [("JanusFlow-1.3B", 2046), ("Janus-Pro-1B", 2076), ("Janus-Pro-7B", 7407)]
)
def test_packaged_configurations_describe_networks_of_the_published_sizes(name, millions):
    assert parameters(f"deepseek-ai/{name}") // 10**6 == millions


def test_other_names_and_folders_of_ones_own_have_no_packaged_configuration(tmp_path, monkeypatch):
    assert published_configs.folder("janusflow/scenes") is None
    assert published_configs.configuration("deepseek-ai/JanusFlow-9B") is None
    assert len(published_configs.names()) == 4
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deepseek-ai" / "JanusFlow-1.3B").mkdir(parents=True)
    assert published_configs.folder("deepseek-ai/JanusFlow-1.3B") is None
