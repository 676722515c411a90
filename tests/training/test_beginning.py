"""A recipe's run begins from a model or from another run, and says at once where it cannot."""

import shutil
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from smoke_runs import same

from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.training import (
    beginning,
    checkpoints,
    distillation,
    export,
    job,
    precompute,
    vision_pretraining,
)
from janusflow.training.rewards import reward_job
from janusflow.utils.hub import PACKAGED

SMALL = {"steps": 1, "images": 2, "questions": 1, "alignment": "none", "run.save_every": 1}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run of the smallest recipe from nothing."""
    out = tmp_path_factory.mktemp("first")
    job.of_recipe("scenes-smoke", out, SMALL | {"vision_steps": 1}).run()
    return out


@pytest.fixture
def no_vision(monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("a vision encoder was trained although one was given")

    monkeypatch.setattr(vision_pretraining, "pretrain", forbidden)


def weights(folder):
    return JanusFlowModel.from_pretrained(folder, dtype=torch.float32).state_dict()


@pytest.mark.usefixtures("no_vision")
def test_a_recipe_begins_from_a_packaged_model_of_another_geometry(tmp_path):
    out = tmp_path / "run"
    plan = job.of_recipe("scenes-smoke", out, SMALL, "janusflow/scenes")
    assert "first" not in plan.describe() and not out.exists()
    assert plan.run().finished
    assert same(weights(out / "base"), weights(PACKAGED["janusflow/scenes"]))
    again = job.of_recipe("scenes-smoke", out, SMALL | {"steps": 2}, "janusflow/scenes").run()
    assert again.finished and again.state.step == 2
    export.export(out, tmp_path / "model", torch.float32)
    assert weights(tmp_path / "model").keys() == weights(out / "base").keys()


@pytest.mark.usefixtures("no_vision")
def test_a_recipe_begins_from_an_export_and_from_a_run_alike(first, tmp_path):
    export.export(first, tmp_path / "model", torch.float32)
    ends = []
    for name, start in (("a", tmp_path / "model"), ("b", first)):
        job.of_recipe("scenes-smoke", tmp_path / name, SMALL, start).run()
        ends.append(checkpoints.latest(tmp_path / name)[1])
    assert same(*ends)


@pytest.mark.usefixtures("no_vision")
def test_a_chain_of_recipe_runs_needs_no_earlier_folder(first, tmp_path):
    shutil.copytree(first, tmp_path / "1")
    job.of_recipe("scenes-smoke", tmp_path / "2", SMALL, tmp_path / "1").run()
    shutil.rmtree(tmp_path / "1")
    job.of_recipe("scenes-smoke", tmp_path / "3", SMALL, tmp_path / "2").run()
    export.export(tmp_path / "3", tmp_path / "model")
    vision = "vision_und_enc_model.vision_tower.patch_embed.proj.weight"
    found = (weights(folder)[vision] for folder in (first / "base", tmp_path / "3" / "base"))
    assert torch.equal(*found)
    shutil.rmtree(tmp_path / "3" / "base")  # the recipe alone cannot make it anew
    with pytest.raises(ValueError, match="name it by --model"):
        export.export(tmp_path / "3", tmp_path / "again")


def test_a_beginning_left_by_a_killed_run_is_not_taken_for_another_one(first, tmp_path):
    shutil.copytree(PACKAGED["janusflow/scenes-few"], tmp_path / "run" / "base")
    job.of_recipe("scenes-smoke", tmp_path / "run", SMALL, first).run()
    assert weights(tmp_path / "run" / "base").keys() == weights(first / "base").keys()


@pytest.mark.parametrize(
    ("start", "changes", "said"),
    [
        ("janusflow/emoji", {}, "96 pixels.*reads images of 64"),
        ("janusflow/scenes-pro", {}, "type 'janus', not a JanusFlow"),
        ("janusflow/scenes", {"hidden": 32}, "hidden is 32, and 128 in the model"),
        (
            "janusflow/scenes",
            {"vision_steps": 9},
            "vision_steps is for a training from random weights",
        ),
        ("nowhere/model", {}, "no folder here"),
    ],
)
@pytest.mark.usefixtures("no_vision")
def test_what_a_recipe_cannot_begin_from_is_refused_before_any_work(tmp_path, start, changes, said):
    with pytest.raises(ValueError, match=said):
        job.of_recipe("scenes-pico", tmp_path / "run", changes, start)
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_model_is_refused(tmp_path):
    for plan in (
        lambda: job.of_recipe("scenes-pico", tmp_path / "run", {}, tmp_path),
        lambda: job.of_stage(3, None, tmp_path, tmp_path / "run", {}, tmp_path),
    ):
        with pytest.raises(ValueError, match="neither a run's checkpoint nor a model"):
            plan()


def test_a_model_without_an_autoencoder_is_refused(tmp_path):
    shutil.copytree(PACKAGED["janusflow/scenes-few"], tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "vae")
    (tmp_path / "model" / "SHA256SUMS").unlink()
    with pytest.raises(ValueError, match="holds no vae/"):
        job.of_recipe("scenes-pico", tmp_path / "run", {}, tmp_path / "model")


def test_a_stage_begins_from_a_packaged_name(tmp_path):
    (tmp_path / "texts.txt").write_text("a red circle\n" * 4)
    changes = {"training.steps": 1, "training.batch": 2}
    plan = job.of_stage(
        2, None, tmp_path / "texts.txt", tmp_path / "run", changes, "janusflow/scenes"
    )
    assert plan.meta["model"] == "janusflow/scenes"


def test_a_stage_says_that_a_janus_pro_is_none_of_its_models(tmp_path):
    (tmp_path / "texts.txt").write_text("a red circle\n" * 4)
    with pytest.raises(ValueError, match="type 'janus', not a JanusFlow"):
        job.of_stage(2, "janusflow/scenes-pro", tmp_path / "texts.txt", tmp_path / "run")


@pytest.mark.parametrize(
    "work",
    [reward_job.plan, distillation.plan, lambda name, out: distillation.pairs(name, out, 1)],
    ids=["reward", "distill", "pairs"],
)
def test_what_trains_a_flow_says_before_any_work_that_a_janus_pro_has_none(tmp_path, work):
    with pytest.raises(ValueError, match="type 'janus', not a JanusFlow, and has no flow; choose"):
        work("janusflow/scenes-pro", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_autoencoder_of_another_model_is_refused_before_any_work(tiny_folder, tmp_path):
    model = shutil.copytree(tiny_folder, tmp_path / "model")
    shutil.rmtree(model / "vae")
    shutil.copytree(PACKAGED["janusflow/emoji"] / "vae", model / "vae")
    (tmp_path / "texts.txt").write_text("a red circle\n" * 4)
    out = tmp_path / "run"
    for work in (
        lambda: reward_job.plan(str(model), out),
        lambda: distillation.plan(str(model), out),
        lambda: distillation.pairs(str(model), out, 1),
        lambda: precompute.load(str(model), teacher="none"),
        lambda: job.of_stage(2, str(model), tmp_path / "texts.txt", out),
    ):
        with pytest.raises(ValueError, match="autoencoder makes 32 channels, the network takes 16"):
            work()
    assert not out.exists()


@pytest.mark.parametrize("name", ["processor_config.json", "preprocessor_config.json"])
def test_a_folder_whose_export_would_not_load_is_not_trained(tiny_folder, tmp_path, name):
    model = shutil.copytree(tiny_folder, tmp_path / "model")
    (model / name).unlink()
    (tmp_path / "texts.txt").write_text("a red circle\n" * 4)
    for work in (
        lambda: reward_job.plan(str(model), tmp_path / "run"),
        lambda: distillation.plan(str(model), tmp_path / "run"),
        lambda: job.of_stage(2, str(model), tmp_path / "texts.txt", tmp_path / "run"),
    ):
        with pytest.raises(ValueError, match=r"processor_config\.json"):
            work()


@pytest.mark.parametrize("content", ["", "{}", None])
def test_a_tokenizer_that_cannot_be_read_is_told_in_a_sentence(tiny_folder, tmp_path, content):
    model = shutil.copytree(tiny_folder, tmp_path / "model")
    (model / "tokenizer.json").unlink()
    if content is not None:
        (model / "tokenizer.json").write_text(content)
    for work in (reward_job.plan, distillation.plan):
        with pytest.raises(ValueError, match=r"tokenizer\.json.*; "):
            work(str(model), tmp_path / "run")


def test_a_recipe_names_the_setting_that_is_no_number(tmp_path):
    with pytest.raises(ValueError, match="lr is 'abc'"):
        job.of_recipe("scenes-smoke", tmp_path, {"lr": "abc"})


@pytest.mark.usefixtures("no_vision")
def test_a_run_s_best_state_is_a_beginning_too(first, tmp_path):
    shutil.copytree(first, tmp_path / "run")
    (tmp_path / "run" / "best").mkdir()
    for path in (tmp_path / "run").glob("step-*"):
        shutil.copy(path, tmp_path / "run" / "best")
    start = beginning.of_recipe(tmp_path / "run" / "best", tmp_path / "next")
    assert start.under == tmp_path / "run" / "base"


@pytest.mark.parametrize(("seconds", "steps"), [(1, 3), (100, 1)])
def test_a_dry_run_measures_slow_steps_once(monkeypatch, seconds, steps):
    done, clock = [], count(0, seconds)
    monkeypatch.setattr(job.time, "perf_counter", lambda: next(clock))
    trainer = SimpleNamespace(step=lambda: done.append(1))
    assert job._seconds(trainer) == seconds and len(done) == steps
