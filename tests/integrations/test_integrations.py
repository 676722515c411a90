"""Adapters of other toolkits as far as they work without them; test_lmms_eval.py has the rest."""

import json
import sys

import pytest
from lmms_questions import answer
from PIL import Image

from janusflow.integrations import benchmark_report
from janusflow.integrations.vlmevalkit import JanusFlow, choice, closed, main
from janusflow.pipelines.answering import ask, likelihoods, message
from janusflow.scenes.questions import question
from janusflow.scenes.shapes import render

SHIPPED = ("janusflow/scenes", "janusflow/scenes-pro")


@pytest.fixture(scope="module", params=SHIPPED)
def model(request):
    return JanusFlow(request.param, device="cpu", max_new_tokens=40)


@pytest.fixture(scope="module")
def asked():
    return [question("test", i, name) for name in ("count", "color", "relation") for i in range(2)]


def written(tmp_path, q):
    path = tmp_path / "a.png"
    Image.fromarray(render(q.scene.objects)).save(path)
    return str(path)


def test_a_message_of_vlmevalkit_gets_the_answer_that_janusflow_gives(model, asked, tmp_path):
    said = []
    for q in asked:
        shown = {"type": "image", "value": written(tmp_path, q)}
        said.append(model.generate_inner([shown, {"type": "text", "value": q.text}], "POPE"))
    assert said == answer(model.pipe, asked)


def test_a_conversation_of_vlmevalkit_is_answered_with_what_was_said_before(model, asked, tmp_path):
    q = asked[0]
    shown = {"type": "image", "value": written(tmp_path, q)}
    first = [{"role": "user", "content": [shown, {"type": "text", "value": q.text}]}]
    assert model.chat_inner(first) == answer(model.pipe, [q])[0]
    more = {"role": "user", "content": [{"type": "text", "value": "is there a circle?"}]}
    said = {"role": "assistant", "content": [{"type": "text", "value": q.answer}]}
    assert model.chat_inner([*first, said, more])


def test_what_is_neither_picture_nor_text_is_refused(model):
    with pytest.raises(ValueError, match="'video'"):
        model.generate_inner([{"type": "video", "value": "a.mp4"}])


def test_prompts_of_choice_list_the_options_that_are_there():
    nan = float("nan")
    line = {"question": "which?", "hint": nan, "A": "red", "B": "blue", "C": nan}
    assert choice(line).startswith("which?\nA. red\nB. blue\n\nAnswer with")
    assert choice(line | {"hint": "look"}).startswith("Hint: look\nwhich?")
    assert "single word" in choice({"question": "which?"})


def test_the_ending_of_popes_questions_is_replaced():
    line = {"question": "Is there a dog? Please answer yes or no."}
    assert closed(line) == "Is there a dog?\nAnswer the question using a single word or phrase."


def test_the_likelier_of_two_answers_is_the_greedy_one():
    model = JanusFlow(SHIPPED[0], device="cpu")  # the small Janus-Pro was not trained to answer
    q = question("test", 0, "existence")
    shown = message(q.text, [Image.fromarray(render(q.scene.objects))])
    scores = dict(
        zip(("yes", "no"), likelihoods(model.pipe, [shown] * 2, ["yes", " no"]), strict=True)
    )
    said = ask(model.pipe, [shown], max_new_tokens=5)[0]
    assert min(scores, key=lambda name: scores[name][0]) == said
    assert [name for name, (_, greedy) in scores.items() if greedy] == [said]


def test_likelihoods_do_not_depend_on_the_batch(model):
    q = question("test", 0, "existence")
    shown = message(q.text, [Image.fromarray(render(q.scene.objects))])
    told = ["yes", "a red circle", "two blue squares left of a green star"]
    together = likelihoods(model.pipe, [shown] * 3, told)
    for one, text in zip(together, told, strict=True):
        (alone,) = likelihoods(model.pipe, [shown], [text])
        assert one[0] == pytest.approx(alone[0], abs=1e-4) and one[1] == alone[1]


def test_an_empty_continuation_is_refused(model):
    with pytest.raises(ValueError, match="adds no token"):
        likelihoods(model.pipe, [message("hi", [])], [" "])


def test_pictures_stand_where_the_text_marks_them_or_before_it():
    a, b = Image.new("RGB", (2, 2)), Image.new("RGB", (3, 3))

    def order(text, pictures):
        parts = message(text, pictures, ("<image>",))[0]["content"]
        return [part.get("text") or part["image"].size[0] for part in parts]

    assert order("x <image> y <image> z", [a, b]) == ["x ", 2, " y ", 3, " z"]
    assert order("x <image>", [a, b]) == [2, 3, "x <image>"]
    assert order("x", []) == ["x"]


def test_the_report_names_popes_split_and_mmbenchs_mode():
    assert benchmark_report.protocol("pope_adv") == "adversarial split"
    assert "three splits" in benchmark_report.protocol("pope")
    for name in ("mmbench_en_dev", "MMBench_DEV_EN_V11", "CCBench"):
        assert "circular" in benchmark_report.protocol(name)
    assert "kept back" in benchmark_report.protocol("MMBench_TEST_EN")
    assert benchmark_report.protocol("mmmu_val") == ""


def test_vlmevalkits_table_of_pope_becomes_rows_by_split(tmp_path):
    path = tmp_path / "mine_POPE_score.csv"
    path.write_text("split,Overall,acc\nOverall,80,81\nrandom,90,91\n")
    made = benchmark_report.table([path])
    assert "| POPE | the three splits together | F1, % | 80 |" in made
    assert "| POPE | random split | F1, % | 90 |  | mine |" in made


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", json.dumps({"results": {"x": {}}})),
        ("mine_POPE_score.csv", "a,b\n1,2\n"),
        ("b.json", "{"),
    ],
)
def test_files_that_hold_no_results_are_told_in_a_sentence(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        benchmark_report.table([path])
    assert "\n" not in str(caught.value)


def test_vlmevalkit_is_asked_for_in_one_sentence_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "vlmeval", None)
    with pytest.raises(SystemExit, match="VLMEvalKit is needed"):
        main(["mine=janusflow/scenes", "--data", "POPE"])


def test_a_benchmark_report_of_nothing_or_of_another_file_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "other.json").write_text("{}")
    for names, said in (([], "no file is named"), ([tmp_path / "other.json"], "not a result of")):
        with pytest.raises(SystemExit, match=said):
            benchmark_report.main(names)
