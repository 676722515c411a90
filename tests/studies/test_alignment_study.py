"""The alignment study: fair arms, exact measures, runs that resume, a report that adds up."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from janusflow.models.janusflow.vision import VisionEncoder
from janusflow.scenes.scorer import score
from janusflow.scenes.shapes import render
from janusflow.training.recipes import Recipe
from studies.alignment import easy_scenes, findings, measurements, models
from studies.alignment import run as ablate
from studies.alignment.models import Study

DOCS = Path(__file__).parent.parent.parent / "docs"
TINY = Study(
    steps=2, every=1, batch=8, pool=32, held_out=20, images=1, calls=3, hidden=32, blocks=3,
    channels=16, warmup=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    torch.manual_seed(1)  # not the seed of the random teacher
    encoder = VisionEncoder(Recipe().config(vocab_size=1).vision).requires_grad_(False).eval()
    folder = tmp_path_factory.mktemp("base")
    return models.prepare(TINY, folder, encoder)


def test_every_scene_of_the_easy_world_is_what_its_prompt_asks_for():
    kinds, scenes = easy_scenes.draw("test", 40)
    for kind, objects in zip(kinds, scenes, strict=True):
        assert score(render(objects), easy_scenes.request(kind)).strict
        assert not score(render(objects), easy_scenes.request(easy_scenes.other(kind))).lenient
    assert easy_scenes.draw("test", 5)[1] == scenes[:5]
    assert easy_scenes.draw("train", 5)[1] != scenes[:5]


def test_the_other_kind_differs_in_shape_and_in_colour():
    kinds = np.arange(len(easy_scenes.KINDS))
    for kind, other in zip(kinds, easy_scenes.other(kinds), strict=True):
        pairs = zip(easy_scenes.KINDS[kind], easy_scenes.KINDS[other], strict=True)
        assert all(a != b for a, b in pairs)


def test_all_arms_of_a_seed_start_alike_and_see_the_same_batches(lab):
    first, second = lab.model(3).state_dict(), lab.model(3).state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    for step in (0, 1):
        a, b = (ablate.batch(lab, 3, step, teacher) for teacher in (None, "oracle"))
        assert (a[0] == b[0]).all() and torch.equal(a[2], b[2])
        assert torch.equal(a[1].t, b[1].t) and torch.equal(a[1].noise, b[1].noise)
    assert not torch.equal(a[1].noise, ablate.batch(lab, 4, 1, None)[1].noise)


@pytest.fixture(scope="module")
def finished(lab):
    said = []
    return {arm: ablate.run(lab, arm, 0, said.append) for arm in ablate.ARMS}, said


def test_every_arm_trains_and_is_measured_at_every_point(finished):
    runs, said = finished
    for arm, made in runs.items():
        assert [p["step"] for p in made["points"]] == [1, 2] and len(made["cknna"]) == TINY.blocks
        point = made["points"][-1]
        assert len(point["held_out"]) == len(point["gap"]) == 10
        assert all(len(point[name]) == 12 for name in ("strict", "lenient", "color"))
        assert ("alignment" in point) == (arm not in ("none", "dispersive", "contrastive"))
        if "alignment" in point:
            assert 0 < abs(point["gradient_cosine"]) < 1
        assert json.loads(json.dumps(made)) == made
    assert len(said) == 2 * len(runs)
    losses = {arm: made["points"][-1]["held_out"] for arm, made in runs.items()}
    assert len({str(v) for v in losses.values()}) == len(losses)  # each arm trained differently


def test_a_run_is_a_function_of_arm_and_seed(lab, finished):
    again = ablate.run(lab, "sra", 0, lambda _: None)
    assert again["points"] == finished[0]["sra"]["points"]


def test_the_gap_is_what_a_wrong_prompt_costs(lab, monkeypatch):
    """A velocity that knows the answer from the prompt's kind alone."""
    model = lab.model(0)

    def exact(_lab, _model, kinds, _dropped):
        return kinds

    right = lab.test.kinds
    monkeypatch.setattr(measurements, "prompt_of", exact)
    noise = {}

    def velocity(x, t, kinds):
        t = t.view(-1, 1, 1, 1)
        noise["target"] = (lab.test.latents - x) / (1 - t)
        wrong = torch.from_numpy(kinds != right).float().view(-1, 1, 1, 1)
        return noise["target"] + wrong * (1 + t)

    monkeypatch.setattr(model, "velocity", velocity)
    made = measurements.held_out(lab, model)
    expected = [(1 + (i + 0.5) / 10) ** 2 for i in range(10)]
    assert max(made["held_out"]) < 1e-4
    assert made["gap"] == pytest.approx(expected, rel=1e-3)


def test_the_score_of_perfect_pictures_is_one_and_of_swapped_ones_zero(lab, monkeypatch):
    kinds = np.arange(12)
    scenes = [(easy_scenes.Obj(*easy_scenes.KINDS[k], 48, 48, 50),) for k in kinds]
    pictures = next(iter(easy_scenes.rendered(scenes)))
    with torch.no_grad():
        latents = lab.autoencoder.encode(pictures).latent_dist.mode()
    for order, share in ((kinds, 1.0), (easy_scenes.other(kinds), 0.0)):
        x = latents[torch.from_numpy(order)]
        monkeypatch.setattr(measurements.samplers, "sample", lambda *_, x=x, **__: x)
        with torch.no_grad():
            made = measurements.scene_score(lab, lab.model(0), 0)
        assert all(np.mean(made[name]) == share for name in ("strict", "lenient", "color"))


def test_finished_runs_are_not_made_again_and_another_study_is_refused(
    finished, tmp_path, monkeypatch
):
    for arm in ("none", "oracle"):
        (tmp_path / f"{arm}-0.json").write_text(json.dumps(finished[0][arm]), encoding="utf-8")
    monkeypatch.setattr(ablate, "prepare", lambda *_: pytest.fail("nothing was left to train"))
    runs = ablate.go(TINY, ["none", "oracle"], 1, tmp_path, None)
    assert [run["arm"] for run in runs] == ["none", "oracle"]
    with pytest.raises(ValueError, match="belongs to another study"):
        ablate.go(Study(steps=3), ["none"], 1, tmp_path, None)


def test_numbers_of_the_study_are_set_by_name():
    assert ablate.changed(["steps=5", "lr=0.1"]) == Study(steps=5, lr=0.1)
    for wrong, message in ((["speed=1"], "no number 'speed'"), (["lr=fast"], "NAME=NUMBER")):
        with pytest.raises(ValueError, match=message):
            ablate.changed(wrong)


# The report


def made_run(arm, seed, strict, gap):
    points = [
        {
            "step": 50 * (i + 1),
            "held_out": [1.0] * 10,
            "gap": [g] * 10,
            "gradient_cosine": None,
            **{name: s for name in ("strict", "lenient", "color")},
        }
        for i, (s, g) in enumerate(zip(strict, gap, strict=True))
    ]
    study = {"batch": 32, "blocks": 2, "images": 1, "steps": 100, "held_out": 10}
    return {"arm": arm, "seed": seed, "protocol": None, "study": study,
            "cpu_seconds": 1.0, "points": points, "cknna": [0.1, 0.2]}  # fmt: skip


def test_the_report_holds_means_intervals_and_paired_differences(tmp_path):
    none, half, good = [False] * 24, [True, False] * 12, [True] * 24
    runs = [
        made_run("none", 0, [none, none], [0.1, 0.2]),
        made_run("none", 1, [none, half], [0.1, 0.3]),
        made_run("oracle", 0, [none, half], [0.1, 0.5]),
        made_run("oracle", 1, [half, good], [0.1, 0.5]),
    ]
    made = findings.save(runs, tmp_path / "alignment.json")
    strict = made["arms"]["oracle"]["curves"]["strict"]
    assert strict["mean"] == [0.25, 0.75] and strict["seeds"] == [[0, 0.5], [0.5, 1]]
    assert all(
        a <= m <= b for a, m, b in zip(strict["low"], strict["mean"], strict["high"], strict=True)
    )
    assert made["arms"]["oracle"]["against_none"]["gap"] == pytest.approx([0.3, 0.2])
    assert made["arms"]["none"]["curves"]["gap"]["mean"] == pytest.approx([0.1, 0.25])
    assert json.loads((tmp_path / "alignment.json").read_text())["study"]["batch"] == 32
    tables = (tmp_path / "alignment.tables.md").read_text()
    assert "| oracle | 0.75 [" in tables and "+0.3000, +0.2000" in tables
    assert (tmp_path / "alignment.png").stat().st_size > 10_000


def test_the_committed_runs_have_every_arm_and_two_seeds_of_each():
    made = json.loads((DOCS / "alignment.json").read_text(encoding="utf-8"))
    assert set(made["arms"]) == set(ablate.ASKED)
    assert all(len(arm["seeds"]) >= 2 for arm in made["arms"].values())


def test_a_folder_without_runs_or_with_two_studies_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no finished run"):
        findings.read(tmp_path)
    for arm, batch in (("none", 32), ("oracle", 64)):
        run = made_run(arm, 0, [[True] * 12], [0.1])
        run["study"] = {"batch": batch}
        (tmp_path / f"{arm}-0.json").write_text(json.dumps(run))
    with pytest.raises(ValueError, match="several studies"):
        findings.read(tmp_path)
