"""Questions about scenes: right answers score one, and each is asked once."""

import json
from dataclasses import replace

import pytest
from evaluation_plan import PLAN
from PIL import Image

from janusflow.evaluation import runner
from janusflow.evaluation.tasks.vqa import ANSWERS, answer, questions
from janusflow.scenes.shapes import render


def timeless(result):
    return {name: value for name, value in result.items() if name != "times"}


VQA = replace(PLAN, task="scenes-vqa", splits=("test", "pairs"), prompts=2)


def test_right_answers_score_one_and_yes_alone_scores_the_share_of_yes(tmp_path, monkeypatch):
    asked = questions(VQA)
    right = {(q.text, render(q.scene.objects).tobytes()): q.answer for q in asked.values()}
    monkeypatch.setattr(
        "janusflow.evaluation.tasks.vqa.answer",
        lambda _pipe, shown, texts: [
            right[t, s.tobytes()] for t, s in zip(texts, shown, strict=True)
        ],
    )
    scores = runner.run(lambda: None, VQA, tmp_path / "right", {})["scores"]["test"]
    assert scores["overall"]["scores"]["exact"]["score"] == 1.0
    monkeypatch.setattr(
        "janusflow.evaluation.tasks.vqa.answer", lambda _pipe, _shown, texts: ["yes"] * len(texts)
    )
    result = runner.run(lambda: None, VQA, tmp_path / "yes", {})
    group = result["scores"]["test"]["groups"]["existence"]
    assert group["extra"]["yes"] == group["extra"]["rec"] == 1.0
    assert group["scores"]["exact"]["score"] == group["extra"]["due"] == group["extra"]["prec"]
    assert timeless(runner.rescore(tmp_path / "yes")) == timeless(result)


def test_questions_are_asked_once(tmp_path, monkeypatch):
    heard = []

    def once(_pipe, _shown, texts):
        if len(heard) == 10:
            raise KeyboardInterrupt
        heard.extend(texts)
        return ["no"] * len(texts)

    monkeypatch.setattr("janusflow.evaluation.tasks.vqa.answer", once)
    with pytest.raises(KeyboardInterrupt):
        runner.run(lambda: None, VQA, tmp_path / "out", {})
    assert len(json.loads((tmp_path / "out" / ANSWERS).read_text())) == 10
    with pytest.raises(ValueError, match="lacks"):
        runner.rescore(tmp_path / "out")
    heard.append("go on")
    runner.run(lambda: None, VQA, tmp_path / "out", {})
    assert len(heard) == len(questions(VQA)) + 1


def test_a_batch_of_questions_is_answered_as_each_alone(tiny_pipe):
    asked = list(questions(VQA).values())[:5]
    shown = [Image.fromarray(render(q.scene.objects)) for q in asked]
    texts = [q.text for q in asked]
    alone = [answer(tiny_pipe, [s], [t])[0] for s, t in zip(shown, texts, strict=True)]
    assert answer(tiny_pipe, shown, texts) == alone
