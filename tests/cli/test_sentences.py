"""What the commands say of damaged folders and mistaken options names what is at fault."""

import json
import shutil

import pytest
from PIL import Image

from janusflow.utils.hub import PACKAGED
from janusflow.utils.safe_io import read_object


@pytest.fixture
def copied(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "model")
    return tmp_path / "model"


def test_a_configuration_with_a_key_twice_is_refused(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"a": {"dtype": 1, "dtype": 2}}')
    with pytest.raises(
        ValueError, match=r"config\.json' is ambiguous: it has the key 'dtype' twice"
    ):
        read_object(path)


def test_a_folder_of_another_kind_is_told(janusflow, copied):
    (copied / "config.json").write_text("{}")
    assert "config.json says no model_type, neither JanusFlow" in janusflow("info", copied)[2]


def test_a_missing_autoencoder_is_named(janusflow, copied):
    shutil.rmtree(copied / "vae")
    code, _, said = janusflow("info", copied)
    assert code == 2 and "holds no vae/" in said and "name its own by --vae" in said


def test_an_autoencoder_of_another_model_is_named(janusflow, copied):
    shutil.rmtree(copied / "vae")
    shutil.copytree(PACKAGED["janusflow/emoji"] / "vae", copied / "vae")
    code, _, said = janusflow("info", copied)
    assert code == 2 and "autoencoder makes 32 channels, the network takes 16" in said


def test_convert_says_what_it_takes(janusflow, copied, tmp_path):
    code, _, said = janusflow("convert", copied, "-o", tmp_path / "new")
    assert code == 2 and "is a JanusFlow" in said and not (tmp_path / "new").exists()


def test_the_doctor_looks_at_the_few_step_model(janusflow, copied):
    told = {"draft": {"model": str(copied / "gone"), "evaluations": 4}}
    (copied / "few-step.json").write_text(json.dumps(told))
    code, out, _ = janusflow("doctor", copied)
    assert code == 1 and "draft images" in out and "does not load" in " ".join(out.split())


def test_what_is_no_log_is_told(janusflow, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert "a.png' has no entry yet" in janusflow("show", tmp_path / "a.png")[2]
    assert "holds no log.jsonl" in janusflow("show", tmp_path / "none.png")[2]


MISTAKES = {
    "an option of another command": (
        ("chat", "a.png", "what?", "--image", "b.png"),
        "; see janusf",
    ),
    "no pairs": (
        ("pairs", "janusflow/scenes", "-o", "x", "--count", 0),
        "--count is 0; expected at",
    ),
    "a rule alone": (
        ("generate", "a star", "--guidance-scale", "apg"),
        "for example apg:2",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_told_in_one_sentence(janusflow, case):
    words, said = MISTAKES[case]
    code, _, error = janusflow(*words)
    assert code == 2 and said in error and "did you mean" not in error
