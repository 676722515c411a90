"""Timing in turns: that each way does what it says, never how long it takes."""

import pytest
import torch

from janusflow.bench import speed

TEXT = "a red circle left of a blue square"


def test_every_quality_is_timed_beside_the_published_way(tiny_pipe):
    report = speed.of_pipeline(tiny_pipe, [TEXT], rounds=2, model="tiny")
    rows = report["ways"]
    assert list(rows) == ["published", *speed.QUALITIES]
    assert rows["published"]["calls"] == rows["exact"]["calls"] == 60
    assert all(len(row["seconds"]) == 2 and row["error"] >= 0 for row in rows.values())
    assert rows["published"]["faster"] == 1
    assert report["protocol"]["model"] == "tiny"
    assert {"machine", "packages", "commit", "pictures", "seed"} <= report["protocol"].keys()
    lines = speed.table(report).splitlines()
    assert len(lines[0]) <= 80 and sum(line.startswith("exact") for line in lines) == 1


def test_fresh_weights_leave_no_part_silent():
    model = speed.wide(1)
    assert all(bool(w.any()) for name, w in model.named_parameters() if name.endswith("weight"))
    again = speed.wide(1)
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_graphs_are_timed_only_with_speed(janusflow):
    assert "no option --compile" in janusflow("bench", "samplers", "--compile")[2]


@pytest.mark.parametrize("folder", ["/", "/nowhere"])
def test_a_source_without_git_has_no_commit(folder, monkeypatch):
    monkeypatch.setattr(speed, "__file__", f"{folder}/speed.py")
    assert speed.commit() == ""
