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
    assert {"machine", "packages", "commit", "images", "seed"} <= report["protocol"].keys()
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


def test_the_published_clock_is_rounded_after_it_is_multiplied(tiny_pipe):
    """1000 t in bfloat16 is what the published network sees; rounding t first is another time."""
    seen = []
    encoder = tiny_pipe.model.vision_gen_enc_model
    hook = encoder.register_forward_pre_hook(lambda _, args: seen.append(args[1][0].clone()))
    try:
        noise = tiny_pipe.prepare_latents(1, None, None, 0)
        speed.reference_sampler.prompts(tiny_pipe, [TEXT], noise, steps=30)
    finally:
        hook.remove()
    expected = torch.tensor([1000 * i / 30 for i in range(30)]).bfloat16().float()
    assert torch.equal((torch.stack(seen) * 1000).round(), expected.round())
    assert not torch.equal((torch.arange(30) / 30).bfloat16().float() * 1000, expected)
