"""The model as its own judge and its own reader, against the exact scorer."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, precision_recall_fscore_support
from test_evaluate import PLAN, Painter, timeless
from test_vqa import VQA

from janusflow.evaluation import report, runner
from janusflow.evaluation.intervals import kappa, wilson
from janusflow.evaluation.task import Item
from janusflow.evaluation.tasks.judge import agreement
from janusflow.evaluation.tasks.round_trip import agrees
from janusflow.evaluation.tasks.vqa import POPE, detection, questions
from janusflow.scenes.captions import parse
from janusflow.scenes.questions import TEMPLATES, prompt_questions, question
from janusflow.scenes.scorer import read
from janusflow.scenes.world import SPLITS, describe, generator, prompt, realise, scene

JUDGE = replace(PLAN, task="judge")
TRIP = replace(PLAN, task="round-trip")


def said_of(picture, text):
    """What a perfect reader answers: the scorer's objects, asked in words."""
    found = read(np.asarray(picture))
    if text == "describe the picture.":
        return describe(found) if found and all(o.shape and o.color for o in found) else "nothing"
    words = text.rstrip("?").split()
    if text.startswith("how many"):
        name = " ".join(words[2:-2])
        fits = [o for o in found if name in ("shapes", *plurals(o))]
        return ("zero", "one", "two", "three", "four")[len(fits)]
    if text.startswith("is there"):
        return "yes" if any(" ".join(words[3:]) in names(o) for o in found) else "no"
    a, b = (next((o for o in found if o.shape == words[i]), None) for i in (2, -1))
    return "yes" if a and b and related(a, " ".join(words[3:-2]), b) else "no"


def names(obj):
    return obj.shape, f"{obj.color} {obj.shape}"


def plurals(obj):
    return [name + ("es" if name.endswith("ss") else "s") for name in names(obj)]


def related(a, relation, b):
    ahead = {"left of": b.x - a.x, "right of": a.x - b.x, "above": b.y - a.y, "below": a.y - b.y}
    return ahead[relation] > 0


def listen(monkeypatch, say):
    def answer(_pipe, pictures, texts):
        return [say(p, t) for p, t in zip(pictures, texts, strict=True)]

    for module in ("tasks.judge", "tasks.vqa"):
        monkeypatch.setattr(f"janusflow.evaluation.{module}.answer", answer)


@pytest.fixture
def poor():
    return Painter(ignorant=("circle", "star", "red"))


def test_a_judge_who_sees_all_agrees_with_the_scorer(poor, tmp_path, monkeypatch):
    listen(monkeypatch, said_of)
    plan = replace(JUDGE, prompts=4, splits=("test", "relations"))
    poor = Painter(plan, ignorant=("circle", "star", "red"))
    result = runner.run(lambda: poor, plan, tmp_path, {})
    whole = result["scores"]["test"]["overall"]
    assert whole["scores"]["agrees"]["score"] == whole["extra"]["kappa"] == 1
    assert whole["extra"]["false+"]["score"] == whole["extra"]["false-"]["score"] == 0
    assert 0 < whole["scores"]["right"]["score"] < 1
    assert "kappa" in report.terminal(result) and "Cohen" in report.markdown(result)
    assert max(map(len, report.terminal(result).splitlines())) <= 80
    assert timeless(runner.rescore(tmp_path)) == timeless(result)


def test_a_judge_who_says_yes_accepts_what_is_wrong(poor, tmp_path, monkeypatch):
    listen(monkeypatch, lambda _p, _text: "yes")
    monkeypatch.setattr("janusflow.evaluation.tasks.judge.pieces", lambda _text: ["as wanted"])
    result = runner.run(lambda: poor, JUDGE, tmp_path, {})
    whole = result["scores"]["test"]["overall"]
    assert whole["extra"]["false+"]["score"] == 1 and whole["extra"]["false-"]["score"] == 0
    assert whole["extra"]["kappa"] == 0 and whole["scores"]["accepts"]["score"] == 1


ALL = [
    pair
    for split in PLAN.splits
    for category in SPLITS[split]
    for index in range(PLAN.prompts)
    for pair in prompt_questions(prompt(split, category, index))
]


def test_the_questions_of_a_prompt_are_of_forms_that_training_asks():
    known = Counter()
    for index in range(400):
        for template in ("existence", "count", "relation"):
            known[" ".join(w for w in question("train", index, template).text.split()[:2])] += 1
    for text, _ in ALL:
        assert known[" ".join(text.split()[:2])], text


def test_kappa_is_that_of_scikit_learn_and_false_shares_have_wilsons_intervals():
    rng = np.random.default_rng(0)
    pairs = [(bool(a), bool(b)) for a, b in rng.integers(2, size=(50, 2))]
    assert kappa(pairs) == pytest.approx(cohen_kappa_score(*zip(*pairs, strict=True)))
    assert kappa([(True, True)] * 3) is None
    items = [
        Item("test", "g", i, 0, "", {"agrees": a == b, "accepts": a, "right": b}, "", "")
        for i, (a, b) in enumerate(pairs)
    ]
    wrong = [a for a, b in pairs if not b]
    entry = agreement(items)["false+"]
    assert (entry["low"], entry["high"]) == wilson(sum(wrong), len(wrong))


def test_captions_are_read_back_as_they_were_written():
    for index in range(300):
        shown = scene("test", index, "mixed")
        needs = parse(shown.caption)
        told = Counter((need.shape, need.color, need.count) for need in needs)
        assert told == Counter((n.shape, n.color, n.count) for n in shown.prompt.needs)
        assert agrees(needs, shown.prompt)
    for text in ("", "a red", "a red circle and", "red circle", "a circle left of a square"):
        assert parse(text) is None


def test_a_caption_with_one_fact_changed_does_not_agree():
    rng = generator("captions")
    for index in range(60):
        asked_for = prompt("test", ("two_object", "counting", "color_attr")[index % 3], index)
        objects = realise(asked_for, rng).objects
        assert agrees(parse(describe(objects)), asked_for)
        if len(objects) < 4:
            assert not agrees(parse(describe([*objects, objects[0]])), asked_for)
        fewer = objects[1:]
        assert not agrees(parse(describe(fewer)), asked_for)


def test_a_round_trip_of_a_perfect_reader_finds_the_pictures_that_show_their_prompt(
    poor, tmp_path, monkeypatch
):
    listen(monkeypatch, said_of)
    result = runner.run(lambda: poor, TRIP, tmp_path, {})
    for item in result["items"]:
        assert item["scores"]["agrees"] == item["scores"]["picture"]
        assert item["scores"]["caption"] == (item["said"] != "nothing")
    assert {item["scores"]["agrees"] for item in result["items"]} == {True, False}


def test_captions_asked_for_and_interrupted_are_asked_once(poor, tmp_path, monkeypatch):
    heard = []

    def say(picture, text):
        if len(heard) == 7:
            raise KeyboardInterrupt
        heard.append(text)
        return said_of(picture, text)

    listen(monkeypatch, say)
    with pytest.raises(KeyboardInterrupt):
        runner.run(lambda: poor, TRIP, tmp_path, {})
    kept = len(json.loads((tmp_path / "answers.json").read_text()))
    assert kept in (6, 7)
    heard.append("go on")
    runner.run(lambda: poor, TRIP, tmp_path, {})
    assert len(heard) == 28 + 1 + (7 - kept)
    assert poor.made == 28


def test_existence_is_asked_as_pope_does_and_every_template_is_there(tmp_path, monkeypatch):
    assert list(POPE.values()) == ["random", "popular", "adversarial"]
    wanted = {"existence", "popular", "adversarial", "count", "color", "shape", "relation"}
    asked_for = {template for _, template, _ in questions(VQA)}
    assert wanted | {"comparison"} <= asked_for and "popular" not in TEMPLATES
    for name in POPE:
        pairs = [question("test", i, name) for i in range(300)]
        assert 0.42 < np.mean([q.answer == "yes" for q in pairs]) < 0.58
        for q in pairs:
            there = any(
                q.text.rstrip("?").endswith((f" {o.shape}", f" {o.color} {o.shape}"))
                and (f"{o.color} {o.shape}" in q.text or not any(c in q.text for c in COLORS))
                for o in q.scene.objects
            )
            assert there == (q.answer == "yes")
    monkeypatch.setattr(
        "janusflow.evaluation.tasks.vqa.answer", lambda _pipe, _shown, texts: ["no"] * len(texts)
    )
    result = runner.run(lambda: None, VQA, tmp_path, {})
    assert result["protocol"]["pope"]["popular"] == "popular"
    assert max(map(len, report.terminal(result).splitlines())) <= 80


COLORS = "red orange yellow green cyan blue purple pink brown black".split()


def test_precision_recall_and_f1_are_those_of_scikit_learn():
    rng = np.random.default_rng(3)
    said, due = rng.integers(2, size=(2, 80))
    words = ("no", "yes")
    items = [
        Item("test", "g", i, 0, "", {"exact": s == d}, f"is it? {words[d]}", words[s])
        for i, (s, d) in enumerate(zip(said, due, strict=True))
    ]
    found = detection(items)
    expected = precision_recall_fscore_support(due, said, average="binary")
    assert [found[name] for name in ("prec", "rec", "F1")] == pytest.approx(expected[:3])
    assert (found["yes"], found["due"]) == (said.mean(), due.mean())
