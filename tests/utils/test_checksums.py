"""Weights with a list of checksums are compared with it whenever they are located."""

import hashlib
import shutil

import pytest

from janusflow.utils.hub import PACKAGED, SUMS, locate


def listed(folder):
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / SUMS).write_text(f"{digest}  model.safetensors\n")
    return folder


@pytest.mark.parametrize("name", PACKAGED)
def test_the_packaged_weights_are_those_of_their_list(name):
    assert "model.safetensors" in (locate(name) / SUMS).read_text()


def test_one_changed_bit_of_the_weights_is_found(tiny_folder, tmp_path):
    folder = listed(shutil.copytree(tiny_folder, tmp_path / "m"))
    assert locate(folder) == folder
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors in .* is not the file"):
        locate(folder)


@pytest.mark.parametrize("line", ["x  model.safetensors", f"{'0' * 64}  ../x", f"{'0' * 64}  /x"])
def test_a_list_that_leads_elsewhere_is_refused(line, tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "m")
    (folder / SUMS).write_text(line)
    with pytest.raises(ValueError, match="malformed"):
        locate(folder)
