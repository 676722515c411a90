"""A tiny model with random weights, written in the published layout."""

import os
import signal
import sys
import threading

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test asks the network
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread a process

import pytest
import torch


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A folder as a checkpoint's, tokenizer and autoencoder included."""
    from janusflow.models.autoencoder import PatchAutoencoder
    from janusflow.models.janusflow.modeling import JanusFlowModel
    from janusflow.models.janusflow.tokenizer import build_tokenizer
    from janusflow.scenes.patches import pixels
    from janusflow.scenes.questions import SPELLINGS, vocabulary
    from janusflow.scenes.shapes import render_batch
    from janusflow.scenes.world import scene
    from janusflow.training.recipes import RECIPES

    folder = tmp_path_factory.mktemp("tiny")
    build_tokenizer(
        folder, [*vocabulary(), "User", "Assistant"], system_prompt="", spellings=SPELLINGS
    )
    recipe = RECIPES["scenes-smoke"]
    torch.manual_seed(0)
    model = JanusFlowModel(recipe.config(vocab_size=600))
    for parameter in model.parameters():  # no part may start silent
        torch.nn.init.normal_(parameter, std=0.08)
    model.save_pretrained(folder)
    autoencoder = PatchAutoencoder(recipe.latent_channels)
    autoencoder.fit(pixels(render_batch([scene("train", i).objects for i in range(32)])))
    autoencoder.save_pretrained(folder / "vae")
    return folder


@pytest.fixture(scope="session")
def tiny_pipe(tiny_folder):
    from janusflow import JanusFlowPipeline

    pipe = JanusFlowPipeline.from_pretrained(tiny_folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def janusflow(monkeypatch, capsys):
    """Runs a command; returns its exit code, stdout and stderr."""
    from janusflow.cli import main

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["janusflow", *map(str, words)])
        try:
            main.main()
            code = 0
        except SystemExit as leave:
            code = leave.code or 0
        return code, *capsys.readouterr()

    return call


def pytest_configure(config):  # noqa: ARG001
    """Commands under test are started as from a terminal, also where nohup started the tests."""
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
