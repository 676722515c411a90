"""Measures of unification say how wrong they are where the truth is known."""

import json
from dataclasses import replace

import pytest
from test_evaluate import PLAN, Painter, timeless
from test_judging import said_of

from janusflow.evaluation import calibration, report, runner
from janusflow.evaluation.task import TASKS
from janusflow.evaluation.tasks import geneval2, soft_tifa, symmetric, telephone, vqa
from janusflow.evaluation.tasks.judge import asking
from janusflow.scenes.captions import parse
from janusflow.scenes.questions import pieces, prompt_questions
from janusflow.scenes.scorer import read
from janusflow.scenes.shapes import render
from janusflow.scenes.world import Prompt, generator, prompt, realise

SMALL = replace(PLAN, prompts=1, seeds=1, splits=("test",), cycles=2)


class Listener(Painter):
    """Draws captions as well as prompts."""

    def draw(self, text):
        if text not in self.prompts and (needs := parse(text)):
            self.prompts[text] = Prompt(text, "mixed", tuple(needs))
        return super().draw(text)


def hear(monkeypatch, say):
    def answer(_pipe, pictures, texts):
        return [say(p, t) for p, t in zip(pictures, texts, strict=True)]

    monkeypatch.setattr(vqa, "answer", answer)


def overall(result):
    whole = result["scores"]["test"]["overall"]
    return {name: entry["score"] for name, entry in whole["scores"].items()}, whole["extra"]


# Telephone


def test_nothing_is_lost_between_a_perfect_painter_and_a_perfect_reader(tmp_path, monkeypatch):
    hear(monkeypatch, said_of)
    plan, painter = replace(SMALL, task="telephone"), Listener(SMALL)
    result = runner.run(lambda: painter, plan, tmp_path, {})
    scores, extra = overall(result)
    assert scores == {"kept": 1, "said": 1} and extra["bias"]["score"] == 0
    assert list(result["scores"]["test"]["groups"]) == ["cycle 0", "cycle 1", "cycle 2"]
    assert all((tmp_path / telephone.path_of(item)).is_file() for item in result["items"])
    assert timeless(runner.rescore(tmp_path)) == timeless(result)
    made = painter.made
    runner.run(lambda: painter, plan, tmp_path, {})
    assert painter.made == made


def test_a_reader_who_sees_too_little_loses_facts_and_does_not_know(tmp_path, monkeypatch):
    hear(monkeypatch, lambda _picture, _text: "a circle")
    plan = replace(SMALL, task="telephone", prompts=2)
    result = runner.run(lambda: Listener(plan), plan, tmp_path, {})
    groups = result["scores"]["test"]["groups"]
    assert groups["cycle 0"]["scores"]["kept"]["score"] == 1
    assert groups["cycle 2"]["scores"]["kept"]["score"] < 0.5
    assert groups["cycle 0"]["extra"]["bias"]["score"] < 0


# Symmetric questions


def test_right_answers_fit_each_other_for_every_kind():
    for name in symmetric.KINDS:
        for index in range(30):
            asked_for = symmetric.pair("test", name, index)
            assert asked_for.fits(*asked_for.due), asked_for.texts


def test_a_reader_who_always_says_yes_is_consistent_and_wrong(tmp_path, monkeypatch):
    hear(monkeypatch, lambda _picture, _text: "yes")
    plan = replace(SMALL, task="symmetric", prompts=12)
    result = runner.run(lambda: None, plan, tmp_path, {})
    groups = result["scores"]["test"]["groups"]
    assert groups["relation"]["scores"]["consistent"]["score"] == 1
    assert groups["relation"]["extra"]["bias"]["score"] > 0.2
    assert groups["comparison"]["scores"]["consistent"]["score"] == 0
    assert groups["counting"]["scores"]["consistent"]["score"] == 0
    assert max(map(len, report.terminal(result).splitlines())) <= 80


# Soft-TIFA


def exact(_pipe, pictures, atoms):
    """A reader who is sure, and right."""
    pairs = zip(pictures, atoms, strict=True)
    return [repr(float(pieces(said_of(p, text)) == pieces(due))) for p, (text, due) in pairs]


def test_a_sure_reader_makes_soft_tifa_the_truth(tmp_path, monkeypatch):
    task = replace(TASKS["soft-tifa"], make=asking(exact))
    monkeypatch.setitem(TASKS, "soft-tifa", task)
    plan = replace(SMALL, task="soft-tifa", prompts=4)
    result = runner.run(lambda: Painter(plan, ignorant=("star", "red")), plan, tmp_path, {})
    scores, extra = overall(result)
    assert 0 < scores["right"] < 1
    assert scores["gm"] == pytest.approx(scores["right"], abs=1e-3)
    assert scores["am"] == pytest.approx(scores["atoms"])
    assert extra["gm AUROC"] == 1 and abs(extra["am bias"]["score"]) < 1e-9


def test_atoms_hold_of_what_was_asked_for_and_of_nothing_less():
    for category in ("two_object", "position", "counting", "color_attr"):
        for index in range(10):
            wanted = prompt("test", category, index)
            found = read(render(realise(wanted, generator(category, index)).objects))
            held = soft_tifa.truths(wanted, found)
            assert all(held) and len(held) == len(prompt_questions(wanted))
            assert not all(soft_tifa.truths(wanted, found[:-1]))


def test_means_are_those_of_the_definition():
    gm, am = soft_tifa.means([0.25, 1.0])
    assert gm == pytest.approx(0.5) and am == pytest.approx(0.625)
    assert soft_tifa.means([0.0, 1.0])[0] < 1e-5


def test_the_shipped_model_gives_probabilities(tiny_pipe):
    from PIL import Image

    from janusflow.pipelines.answering import likelihoods, message, probabilities

    talks = [message(text, [Image.new("RGB", (96, 96))]) for text in ("is there a star?", "why?")]
    found = probabilities(tiny_pipe, talks, ["yes", "yes no"])
    losses = likelihoods(tiny_pipe, talks, ["yes", "yes no"])
    assert all(0 <= p <= 1 for p in found)
    assert len(losses) == 2 and found[0] == pytest.approx(2.718281828 ** -losses[0][0], rel=1e-3)


# GenEval 2


LINES = [
    {
        "prompt": "a red circle",
        "atom_count": 2,
        "vqa_list": [["is there a circle?", "yes"], ["is it red?", "yes"]],
        "skills": ["object", "attribute"],
    },
    {
        "prompt": "a star",
        "atom_count": 1,
        "vqa_list": [["is there a star?", "yes"]],
        "skills": ["object"],
    },
]


def test_geneval2_is_read_generated_and_scored_by_atoms(tmp_path, monkeypatch):
    path, out = tmp_path / "geneval2_data.jsonl", tmp_path / "out"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    monkeypatch.setattr(geneval2, "soft_scores", lambda _p, _i, atoms: ["0.25"] * len(atoms))
    given = {"prompts": str(path)}
    plan = replace(SMALL, task="geneval2", paths=given, digests=geneval2.inputs(given), seeds=1)
    painter = Painter(plan, ignorant=("a",))
    result = runner.run(lambda: painter, plan, out, {})
    groups = result["scores"]["geneval2"]["groups"]
    assert groups["2 atoms"]["scores"]["gm"]["score"] == pytest.approx(0.25)
    paths = json.loads((out / "image_paths.json").read_text())
    assert all((out / paths[line["prompt"]]).is_file() for line in LINES)


@pytest.mark.parametrize(
    "change",
    [{"skills": []}, {"vqa_list": [["is it?"]]}, {"atom_count": "two"}, {"prompt": 3}],
)
def test_what_is_no_line_of_geneval2_is_refused_by_its_number(tmp_path, change):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(LINES[0]) + "\n" + json.dumps(LINES[1] | change) + "\n")
    with pytest.raises(ValueError, match=r"line 2.*geneval2_data\.jsonl"):
        geneval2.entries(path)


# Calibration


def test_auroc_is_that_of_scikit_learn():
    import numpy as np
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    truths, scores = rng.integers(2, size=60), rng.integers(5, size=60)
    assert calibration.auroc(scores, truths) == pytest.approx(roc_auc_score(truths, scores))
    assert calibration.auroc([0.1, 0.2], [True, True]) is None
