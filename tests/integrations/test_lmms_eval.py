"""The plugin inside the installed lmms-eval: its evaluator, its registry, our models."""

import json
from importlib.util import find_spec

import lmms_questions as local
import pytest
from lmms_questions import answer
from PIL import Image

import janusflow
from janusflow.integrations import benchmark_report
from janusflow.scenes.questions import pieces, question

EACH = 2
FLOW, PRO = "janusflow/scenes", "janusflow/scenes-pro"
pytestmark = pytest.mark.skipif(find_spec("lmms_eval") is None, reason="needs lmms-eval")


@pytest.fixture(scope="module")
def plugin():
    from janusflow.integrations import lmms_eval_models

    return lmms_eval_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return local.write(tmp_path_factory.mktemp("tasks"), EACH)


def run(folder, model, task, batch, name="janusflow"):
    """Results of lmms-eval's evaluator, and what the model said by row."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    results = simple_evaluate(
        model=name,
        model_args=f"pretrained={model}",
        tasks=[task],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False, model_name=name),
        batch_size=batch,
        device="cpu",
        bootstrap_iters=0,
    )
    said = {s["doc_id"]: s["filtered_resps"][0] for s in results["samples"][task]}
    return results, [said[i] for i in range(len(said))]


def asked():
    return [question(r["split"], r["index"], r["template"]) for r in local.rows(local.ASKED, EACH)]


@pytest.fixture(scope="module", params=[FLOW, PRO])
def both(request, folder):
    """A packaged model's answers through lmms-eval, alone and in a batch, and through janusflow."""
    alone, in_batch = (run(folder, request.param, "scenes_questions", b) for b in (1, 8))
    return alone, in_batch, answer(janusflow.load(request.param), asked())


def test_the_score_is_the_one_that_janusflow_itself_computes(both):
    (results, said), _, own = both
    right = [pieces(text) == pieces(q.answer) for text, q in zip(own, asked(), strict=True)]
    assert said == own
    score = results["results"]["scenes_questions"]["exact,none"]
    assert score == pytest.approx(sum(right) / len(right))


def test_answers_do_not_depend_on_the_batch(both):
    alone, in_batch, _ = both
    assert alone[1] == in_batch[1]


def test_results_become_a_table_with_their_protocol(both, tmp_path):
    results = {k: v for k, v in both[0][0].items() if k != "samples"}
    path = tmp_path / "x_results.json"
    path.write_text(json.dumps(results, default=str))
    made = benchmark_report.table([path])
    assert "| scenes_questions | split test | exact | " in made
    assert f"| {len(asked())} | pretrained=janusflow/" in made


def test_messages_with_pictures_get_the_same_answers(folder):
    said = run(folder, FLOW, "scenes_questions", 8, "janusflow_chat")[1]
    assert said == answer(janusflow.load(FLOW), asked())


def test_multiple_choice_takes_the_likelier_answer(folder):
    results, said = run(folder, FLOW, "scenes_choice", 4)
    rows = local.rows(local.CLOSED, EACH)
    qs = [question(r["split"], r["index"], r["template"]) for r in rows]
    own = answer(janusflow.load(FLOW), qs)
    right = [text == q.answer for text, q in zip(own, qs, strict=True)]
    assert results["results"]["scenes_choice"]["acc,none"] == pytest.approx(sum(right) / len(right))
    assert len(said) == len(rows)


def test_the_registry_finds_both_kinds_by_the_entry_point(plugin):
    from lmms_eval.models import get_model, get_model_manifest

    assert get_model("janusflow") is get_model("janus_pro") is plugin.Janus
    assert get_model("janusflow_chat").is_simple is False
    assert get_model_manifest("janusflow").chat_class_path is None


def test_sampling_needs_a_temperature_above_zero(plugin):
    generation = plugin.generation
    greedy = generation({"temperature": 0, "top_p": 0.9, "max_new_tokens": 7, "until": ["x"]})
    assert greedy == {"max_new_tokens": 7}
    assert generation({"temperature": 0.5, "do_sample": False}) == {"max_new_tokens": 512}
    sampled = generation({"temperature": 0.5, "top_p": 0.9})
    assert sampled == {"max_new_tokens": 512, "temperature": 0.5, "top_p": 0.9, "do_sample": True}


def test_an_answer_ends_before_the_first_of_the_texts_that_end_it(plugin):
    cut = plugin.cut
    assert cut(" yes\n\nno ASSISTANT: x", ["ASSISTANT:", "\n\n"]) == "yes"
    assert cut("a.b", "") == cut("a.b", None) == "a.b"


def test_pictures_may_be_paths_and_videos_are_refused(plugin, tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (9, 7), "red").save(path)
    assert plugin.image(str(path)).size == (9, 7)
    with pytest.raises(ValueError, match="choose tasks of images"):
        plugin.image({"array": [0.0]})


@pytest.mark.parametrize("options", [{"batch_size": "auto"}, {"batch_size": 0}])
def test_a_batch_size_that_is_no_number_is_refused(plugin, options):
    with pytest.raises(ValueError, match="--batch_size"):
        plugin.Janus(**options)


def test_a_system_prompt_replaces_the_checkpoints_own(plugin):
    model = plugin.Janus(FLOW, device="cpu", system_prompt="be brief")
    chat = [{"role": "user", "content": "hi"}]
    assert "be brief" in model.pipe.processor.apply_chat_template(chat)
