"""The mean of two models' weights."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from studies.average_weights import average


def folder(path, **weights):
    path.mkdir()
    save_file({k: torch.tensor(v) for k, v in weights.items()}, path / "model.safetensors")
    return path


def test_the_second_counts_by_its_share(tmp_path):
    first, second = folder(tmp_path / "a", w=[0.0]), folder(tmp_path / "b", w=[1.0])
    (second / "flow-map.json").write_text("{}")
    average(first, second, 0.75, tmp_path / "c")
    assert load_file(tmp_path / "c" / "model.safetensors")["w"].tolist() == [0.75]
    assert (tmp_path / "c" / "flow-map.json").is_file()


def test_named_weights_are_the_seconds_alone_and_a_third_is_taken_away(tmp_path):
    a, b, c = (
        folder(tmp_path / n, w=[x], seen=[x]) for n, x in (("a", 1.0), ("b", 2.0), ("c", 4.0))
    )
    average(a, b, 0.5, tmp_path / "d", own=["see"], less=c)
    found = load_file(tmp_path / "d" / "model.safetensors")
    assert found["w"].tolist() == [-1.0] and found["seen"].tolist() == [2.0]


def test_weights_of_other_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="other names"):
        average(folder(tmp_path / "a", w=[0.0]), folder(tmp_path / "b", u=[1.0]), 0.5, tmp_path)
