"""A sweep tells its cost first, resumes, and says which published score its intervals hold."""

import json

import pytest
import torch
from test_evaluate import PLAN, Painter

import samplers
from janusflow.bench import reference_sampler
from janusflow.cli.commands import reproduce_actions as actions
from janusflow.evaluation.reproduction import cost
from janusflow.evaluation.reproduction.benchmarks import AGAIN, BENCHMARKS, PAPER
from janusflow.evaluation.reproduction.settings import (
    STATES,
    TOKENIZERS,
    Setting,
    sweep,
    tokenized,
)
from janusflow.models import published_configs

AXES = dict(guidance=[2.0, 1.0], steps=[30, 10], dtype=["bfloat16"], tokenizer=["own", "no-bos"])


def test_a_sweep_changes_one_thing_at_a_time_or_takes_all():
    found = sweep(AXES)
    assert [s.name for s in found] == [
        "w2_30-steps_bfloat16",
        "w1_30-steps_bfloat16",
        "w2_10-steps_bfloat16",
        "w2_30-steps_bfloat16_no-bos",
    ]
    assert len(sweep(AXES, full=True)) == 8
    assert len({s.name for s in sweep(AXES, full=True)}) == 8


def test_guidance_of_one_costs_half():
    assert Setting(guidance=1).evaluations == 30 and Setting().evaluations == 60


@pytest.mark.parametrize("wrong", [{"state": "int8"}, {"tokenizer": "mine"}, {"steps": 0}])
def test_a_setting_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match=r"choose|expected"):
        Setting(**wrong)


def test_the_bfloat16_state_is_that_of_the_published_code(tiny_pipe):
    noise = torch.randn(2, *tiny_pipe.prepare_latents(1, None, None, None).shape[1:])
    texts = ["a red circle", "a star"]
    rows = tiny_pipe.processor.prompt(texts)
    theirs = reference_sampler.sample(
        tiny_pipe.model, rows["input_ids"], rows["attention_mask"], noise, steps=6
    )
    field = tiny_pipe.field(texts, 2.0)
    with torch.no_grad():
        ours = samplers.sample(field, noise, 6, STATES["bfloat16"])
        plain = samplers.sample(field, noise, 6, STATES["float32"])
    far = (plain - theirs.float()).norm() / theirs.float().norm()
    near = (ours - theirs.float()).norm() / theirs.float().norm()
    assert near < 0.3 * far and near < 2e-3


def test_the_faults_of_tokenizers_are_the_known_ones(tiny_pipe):
    ids = tiny_pipe.processor.ids
    assert TOKENIZERS["no-bos"](ids)("a star") == ids("a star")[1:]
    assert TOKENIZERS["no-spaces"](ids)("a star") == ids("astar")
    before = tiny_pipe.processor.prompt(["a star"])["input_ids"].shape
    try:
        after = tokenized(tiny_pipe, "no-bos").processor.prompt(["a star"])["input_ids"].shape
    finally:
        tiny_pipe.processor.ids = ids
    assert after[1] == before[1] - 1


def test_operations_of_the_published_model_are_those_of_its_matrices():
    config = published_configs.configuration("deepseek-ai/JanusFlow-1.3B")
    blocks = 24 * (4 * 2048**2 + 3 * 2048 * 5632)
    assert cost.operations(config) == pytest.approx(2 * 577 * blocks, rel=0.05)


def test_a_dry_run_needs_neither_weights_nor_prompts(janusflow, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cost, "operations_per_second", lambda *_: 1e12)
    code, out, _ = janusflow("reproduce", "geneval", "--dry-run", "--json")
    told = json.loads(out)
    assert code == 0 and told["published"] == {PAPER: 0.63, AGAIN: 0.5}
    assert len(told["settings"]) == 11 and told["settings"][0]["images"] == 553 * 4
    assert told["hours"] == pytest.approx(sum(row["hours"] for row in told["settings"]))
    assert not list(tmp_path.iterdir())
    lines = janusflow("reproduce", "geneval", "--dry-run")[1].splitlines()
    assert lines[0].startswith("24,332 images, 1,614,760 network evaluations, ")
    assert max(map(len, lines)) <= 80


@pytest.fixture
def painter(monkeypatch):
    plan = PLAN.__class__(
        **{**PLAN.__dict__, "splits": ("test",), "prompts": 1, "seeds": 1, "paths": {}}
    )

    class Named(Painter):
        processor = type("Processor", (), {"ids": staticmethod(lambda text: [1, *text.split()])})

        def set_progress_bar_config(self, **_):
            pass

    made = Named(plan, ignorant=("star", "bench"))
    monkeypatch.setattr(actions.load_model, "load", lambda *_a: made)
    return made


SMALL = ["--model", "janusflow/scenes", "--guidance-scale", "2,5", "--steps", "2", "--prompts", "1"]
SMALL += ["--dtype", "float32", "--state", "float32", "--tokenizer", "own"]


def test_a_sweep_runs_resumes_and_compares(painter, janusflow, tmp_path):
    words = ["reproduce", "scenes", *SMALL, "-o", tmp_path, "--json"]
    code, out, err = janusflow(*words)
    assert code == 0, err
    first, second = json.loads(out)["settings"]
    assert first["low"] <= first["score"] <= first["high"] and second["difference"] == 0
    assert (tmp_path / second["name"] / "report.json").is_file()
    made = painter.made
    janusflow(*words)
    assert painter.made - made <= 3 * 8, "only the two timings may paint"


def test_an_interval_that_holds_a_published_score_names_it():
    row = dict(name="w2", score=0.6, low=0.55, high=0.65)
    table = actions.score_table([row], {PAPER: 0.63, AGAIN: 0.5}, BENCHMARKS["geneval"])
    assert table.splitlines()[1].split()[-1] == "0.63"


def test_an_unknown_benchmark_is_one_sentence(janusflow):
    code, _, err = janusflow("reproduce", "genevil", "--dry-run")
    assert code == 2 and "choose one of geneval" in err


def test_the_cost_of_a_published_model_is_timed_on_a_layer_like_the_networks(monkeypatch):
    shapes = []

    def linear(rows, weight):
        shapes.append((*rows.shape, *weight.shape))
        return rows

    monkeypatch.setattr(cost, "linear", linear)
    assert cost.operations_per_second(32, torch.bfloat16) > 0
    assert shapes == [(577, 32, 32, 32)] * 4
