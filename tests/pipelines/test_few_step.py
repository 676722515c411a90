"""A quality that a distilled sibling generates, until an option or new weights speak against it."""

import copy
import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import samplers
from janusflow import JanusFlowPipeline
from janusflow.pipelines import few_step
from janusflow.pipelines.few_step import FewStep
from janusflow.pipelines.flow_maps import FlowMapGrid
from janusflow.pipelines.image_io import story
from janusflow.training import export


@pytest.fixture(scope="module")
def folders(tiny_folder, tmp_path_factory):
    """A model and its flow map, whose weights differ."""
    own, other = (tmp_path_factory.mktemp("pair") / name for name in ("own", "few"))
    for folder in (own, other):
        shutil.copytree(tiny_folder, folder)
    pipe = JanusFlowPipeline.from_pretrained(other)
    with torch.no_grad():
        pipe.model.vision_gen_dec_model.get_parameter("out_convs.0.unpatch_conv.weight").mul_(0.5)
    pipe.save_pretrained(other)
    FlowMapGrid((0, 0.1, 0.3, 0.6, 1), (1, 2, 4)).save(other / "flow-map.json")
    few_step.save({"draft": FewStep(str(other), 4)}, own)
    return own, other


@pytest.fixture(scope="module")
def loaded(folders):
    found = JanusFlowPipeline.from_pretrained(folders[0])
    found.set_progress_bar_config(disable=True)
    return found


@pytest.fixture
def pipe(loaded, folders):
    """As it is after loading."""
    loaded.few_step = few_step.read(folders[0])
    return loaded


def drawn(pipe, **how):
    return pipe("a star", seed=0, output_type="pt", **how)


def test_a_draft_is_generated_by_the_flow_map(pipe, folders):
    other = JanusFlowPipeline.from_pretrained(folders[1])
    out = drawn(pipe, quality="draft")
    assert (out.calls, out.generated_by) == (4, str(folders[1]))
    assert torch.equal(out.images, drawn(other, num_inference_steps=4).images)
    assert drawn(pipe, quality="fast").generated_by is None


@pytest.mark.parametrize(
    "given",
    [
        {"num_inference_steps": 5},
        {"sampler": "heun"},
        {"grid": "uniform"},
        {"guidance_scale": 5.0},
        {"guidance_scale": "cfg_zero_star:2"},
        {"negative_prompt": "a ring"},
        {"height": 128},
        {"first_block_cache": 0.1},
    ],
)
def test_an_option_that_a_flow_map_cannot_follow_takes_the_own_weights(pipe, given):
    out = drawn(pipe, quality="draft", **given)
    pipe.few_step = {}
    assert out.generated_by is None
    assert torch.equal(out.images, drawn(pipe, quality="draft", **given).images)


@pytest.mark.parametrize("given", [{"guidance_scale": 2}, {"height": 96}, {"negative_prompt": ""}])
def test_options_at_their_defaults_change_nothing(pipe, given):
    told = drawn(pipe, quality="draft", **given)
    assert torch.equal(told.images, drawn(pipe, quality="draft").images)


def test_other_weights_than_it_was_distilled_from_generate_themselves(pipe, tmp_path):
    assert pipe.to(torch.float32).few_step
    with torch.no_grad():
        next(pipe.model.parameters()).mul_(1.0)
    assert drawn(pipe, quality="draft").generated_by is None
    few_step.save({"draft": FewStep("janusflow/scenes-few", 4)}, tmp_path)
    pipe.save_pretrained(tmp_path)
    assert not few_step.read(tmp_path)


def test_a_saved_pipeline_keeps_it_and_a_training_does_not(pipe, folders, tmp_path):
    pipe.save_pretrained(tmp_path / "saved")
    again = JanusFlowPipeline.from_pretrained(tmp_path / "saved")
    assert again.few_step["draft"].model == str(folders[1])
    export.write(pipe.model, folders[0], tmp_path / "trained", torch.float32)
    assert not few_step.read(tmp_path / "trained")


def test_a_grid_that_is_placed_anew_takes_its_quality_back(pipe, folders, tmp_path):
    pipe.grids = {"fast": None}
    assert pipe.few_step
    pipe.grids = {"draft": None}
    assert not pipe.few_step
    pipe.grids = {}
    shutil.copy(folders[0] / "few-step.json", tmp_path)
    few_step.take_back(tmp_path, "fast")
    assert few_step.read(tmp_path)
    few_step.take_back(tmp_path, "draft")
    assert not few_step.read(tmp_path)


def test_a_grid_set_by_key_takes_its_quality_back_and_the_same_grids_do_not(pipe):
    pipe.grids = pipe.grids
    assert "draft" in pipe.few_step
    second = type(pipe)(pipe.model, pipe.processor, pipe.vae)
    second.grids = pipe.grids
    assert "draft" in pipe.few_step
    pipe.grids["draft"] = None
    assert "draft" not in pipe.few_step
    del pipe.grids["draft"]
    assert "draft" in pipe.few_step


def test_threads_load_it_once_and_the_forecast_counts_it(pipe):
    before = pipe.forecast().weights
    with ThreadPoolExecutor(4) as threads:
        images = list(threads.map(lambda _: drawn(pipe, quality="draft").images, range(4)))
    assert all(torch.equal(images[0], one) for one in images)
    size = sum(p.nbytes for p in pipe.few_step["draft"].weights.loaded.parameters())
    assert pipe.forecast().weights == before + size


def test_two_qualities_of_one_flow_map_share_its_weights(pipe, folders, tmp_path):
    other = str(folders[1])
    few_step.save({"fast": FewStep(other, 4), "draft": FewStep(other, 2)}, tmp_path)
    before, pipe.few_step = pipe.forecast().weights, few_step.read(tmp_path)
    calls = [drawn(pipe, quality=quality).calls for quality in ("fast", "draft")]
    both = pipe.few_step
    assert calls == [4, 2] and both["fast"].weights is both["draft"].weights
    size = sum(p.nbytes for p in both["fast"].weights.loaded.parameters())
    assert pipe.forecast().weights == before + size


@pytest.mark.parametrize(
    ("told", "error"),
    [
        ({"drfat": {"model": "a", "evaluations": 4}}, "expected a quality"),
        ({"draft": "a"}, "expected a quality"),
        ({"draft": {"model": "a", "evaluations": 0}}, "expected a quality"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, told, error):
    (tmp_path / "few-step.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match=error):
        few_step.read(tmp_path)


def test_a_model_that_is_no_flow_map_is_refused(pipe, tiny_folder):
    pipe.few_step = {"draft": FewStep(str(tiny_folder), 4)}
    with pytest.raises(ValueError, match="not a flow map"):
        drawn(pipe, quality="draft")


def test_the_command_line_says_which_weights_generated(janusflow, folders, tmp_path):
    from PIL import Image

    words = ["generate", "a star", "--model", folders[0], "--quality", "draft", "-o"]
    for more, wanted in (([], str(folders[1])), (["--guidance-scale", "3"], None)):
        code, _, err = janusflow(*words, tmp_path / "a.png", *more)
        assert code == 0, err
        told = story(Image.open(tmp_path / "a.png"))
        assert told.get("generated_by") == wanted and (wanted is None or told["calls"] == "4")


def test_an_evaluation_notes_it(janusflow, folders, tmp_path):
    words = ["evaluate", "--model", folders[0], "--prompts", 1, "--seeds", 1, "--quality", "draft"]
    code, _, err = janusflow(*words, "--out", tmp_path / "out")
    assert code == 0, err
    told = json.loads((tmp_path / "out" / "protocol.json").read_text())
    assert (told["generated_by"], told["steps"]) == (str(folders[1]), 4)
    assert any(name.startswith("few-step/") for name in told["weights"])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pipe: pickle.loads(pickle.dumps(pipe))])
def test_a_copied_pipeline_generates_what_the_original_does(pipe, copied):
    again = copied(pipe)
    one, two = (drawn(p, quality="draft") for p in (pipe, again))
    assert torch.equal(one.images, two.images) and one.generated_by == two.generated_by
    with torch.no_grad():
        next(again.model.parameters()).mul_(1)
    assert not again.few_step and not copied(again).few_step and pipe.few_step


def test_a_compiled_pipeline_compiles_the_flow_map_too(folders):
    fresh = JanusFlowPipeline.from_pretrained(folders[0])
    fresh.set_progress_bar_config(disable=True)
    torch.compiler.reset()
    eager = [drawn(fresh, quality=quality).images for quality in ("draft", "exact", "draft")]
    fresh.compile(backend="eager")  # what is traced, without the minutes of a compiler
    compiled = [drawn(fresh, quality=quality) for quality in ("draft", "exact", "draft")]
    assert [out.calls for out in compiled] == [4, 60, 4]
    assert [out.generated_by for out in compiled] == [str(folders[1]), None, str(folders[1])]
    for one, out in zip(eager, compiled, strict=True):
        torch.testing.assert_close(out.images, one, atol=1e-4, rtol=0)
    assert len(fresh._compiled._shapes) == 2
    torch.compiler.reset()


def test_a_benchmark_with_compiled_models_times_the_flow_map_too(pipe, monkeypatch):
    from janusflow.bench import speed

    monkeypatch.setattr(type(pipe), "compile", lambda self: self)
    ways = speed.of_pipeline(pipe, ["a star"], rounds=1, compile=True)["ways"]
    assert ways["draft"]["calls"] == 4 and pipe.few_step


def test_prepare_integrates_what_the_pipeline_would_and_refuses_what_it_leaves_out(pipe):
    with torch.no_grad():
        call, field = pipe.prepare("a star", quality="draft", seed=0)
        end = samplers.sample(field, call.noise(pipe), call.ts, call.solver)
    out = pipe("a star", quality="draft", seed=0, output_type="latent")
    assert torch.equal(end, out.images) and call.few.model == out.generated_by
    given = dict(best_of=2, output_type="latent", adapters=["x"], memory_limit=10**9)
    for name, value in given.items():
        with pytest.raises(ValueError, match=f"prepare does not use {name}"):
            pipe.prepare("a star", **{name: value})
