"""Fixtures of several files: a tiny tokenizer's folder, and a tiny Janus-Pro."""

import pytest
import tiny_pro
from tiny_tokenizer import TEXTS, WORDS

import janusflow
from janusflow.models.janusflow.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    return build_tokenizer(tmp_path_factory.mktemp("bytes"), WORDS, TEXTS)


@pytest.fixture
def own(tokenizer_folder, tmp_path):
    """A copy of the folder that a test may spoil."""
    for file in tokenizer_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.fixture(scope="module")
def pro_network():
    return tiny_pro.model()


@pytest.fixture(scope="module")
def pro_folder(tmp_path_factory, pro_network):
    return tiny_pro.write_published(tmp_path_factory.mktemp("published"), pro_network)


@pytest.fixture(scope="module")
def pro_pipe(pro_folder):
    pipe = janusflow.load(pro_folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe
