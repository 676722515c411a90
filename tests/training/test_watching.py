"""Looking at a run: samples on the way, how much of the machine it uses, what remains."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from smoke_runs import RECIPE, engine
from torch import nn

from checks import throughput
from janusflow.training import (
    checkpoints,
    init_checkpoint,
    job,
    vision_pretraining,
)
from janusflow.training.preview import averaged
from janusflow.utils.flops import Counting, Meter, peak


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("looking") / "base"
    init_checkpoint.first_model(RECIPE, folder)
    return folder


def run(base, out, **changes):
    shutil.copytree(base, out / "base")
    return job.of_recipe("scenes-smoke", out, changes).run()


def log_of(out):
    return [json.loads(x) for x in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def test_samples_are_drawn_on_the_way_and_change_nothing_of_the_run(base, tmp_path):
    tensorboard = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    prompts = ["a red circle", "a blue square, and a star"]
    looks = {"run.sample_every": 4, "run.sample_prompts": prompts, "run.trackers": "tensorboard"}
    run(base, tmp_path / "looking", **looks)
    run(base, tmp_path / "blind")
    ours, theirs = (checkpoints.read(tmp_path / n, 8)[0] for n in ("looking", "blind"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    found = sorted((tmp_path / "looking" / "samples").iterdir())
    assert [path.name for path in found] == ["step-00000004.png", "step-00000008.png"]
    sheets = [Image.open(path) for path in found]
    assert sheets[0].width == 2 * 96 + 4 and sheets[0].height > 96  # captions below
    assert sheets[0].tobytes() != sheets[1].tobytes()
    events = tensorboard.EventAccumulator(str(tmp_path / "looking" / "janusflow")).Reload()
    assert [e.step for e in events.Images("samples")] == [4, 8]


def test_samples_are_of_the_averages_and_the_weights_come_back(base):
    made = engine(base)
    for _ in range(3):
        made.step()
    before = {name: p.detach().clone() for name, p in made.state.parameters.items()}
    with averaged(made.state):
        inside = {name: p.detach().clone() for name, p in made.state.parameters.items()}
    assert all(torch.equal(inside[name], made.state.ema[name]) for name in before)
    assert any(not torch.equal(inside[name], before[name]) for name in before)
    assert all(torch.equal(p, before[name]) for name, p in made.state.parameters.items())


def test_prompts_of_a_grid_are_the_first_captions_unless_told(tmp_path):
    for index, words in enumerate(("a red circle", "a blue star")):
        Image.new("RGB", (96, 96)).save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text(words)
    changes = {"run.sample_every": 1, "training.steps": 1, "training.batch": 2}
    plan = job.of_stage(1, "janusflow/scenes", tmp_path, tmp_path / "run", changes)
    assert plan.preview().prompts == ["a red circle", "a blue star"]
    plan.run()
    assert (tmp_path / "run" / "samples" / "step-00000001.png").exists()


# How much of the machine


def test_operations_of_layers_and_attention_are_counted_forward_and_backward():
    linear, x = nn.Linear(64, 32), torch.randn(10, 64, requires_grad=True)
    with Counting() as counted:
        linear(x).sum().backward()
    assert counted.total == 3 * 2 * 10 * 64 * 32
    q = torch.randn(2, 3, 16, 8, requires_grad=True)
    with Counting() as counted:
        nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True).sum().backward()
    forward = 2 * 2 * 2 * 3 * 16 * 16 * 8
    assert counted.total == pytest.approx(3.5 * forward, rel=0.01)  # five products backward


def test_counting_changes_no_bit_of_a_step(base):
    plain, counted = engine(base), engine(base)
    expected = plain.step()
    meter, found = Meter.of(counted)
    assert found["loss"] == expected["loss"] and found["grad_norm"] == expected["grad_norm"]
    for name, p in plain.state.parameters.items():
        assert torch.equal(p, counted.state.parameters[name])
    parameters = sum(p.numel() for p in counted.objective.model.language_model.parameters())
    assert meter.per_token > 2 * parameters  # at least a forward pass through the language model


def test_the_peak_is_what_a_product_of_matrices_reaches():
    found = peak(torch.device("cpu"), torch.float32, torch.get_num_threads())
    assert 1e9 < found < 1e14
    assert Meter(per_token=found / 100, peak=found).fraction(50) == pytest.approx(0.5)


def test_the_log_has_the_fraction_of_the_peak_and_the_time_left(base, tmp_path):
    run(base, tmp_path, **{"run.log_every": 4})
    first, last = log_of(tmp_path)
    assert 0 < first["mfu"] < 1.2 and 0 < last["mfu"] < 1.2
    assert first["seconds_left"] > 0 and last["seconds_left"] == 0


def test_a_dry_run_says_memory_and_time(base, tmp_path):
    shutil.copytree(base, tmp_path / "base")
    said = job.of_recipe("scenes-smoke", tmp_path).describe()
    lines = dict(line.split(maxsplit=1) for line in said.splitlines())
    assert {"memory", "measured", "time", "steps", "optimizer"} <= lines.keys()
    measured = int(lines["measured"].split()[0].replace(",", ""))
    assert measured > int(lines["memory"].split()[0].replace(",", ""))
    assert not checkpoints.complete(tmp_path) and not (tmp_path / "log.jsonl").exists()


@pytest.mark.slow
def test_a_dry_run_of_a_recipe_trains_nothing_and_leaves_nothing(tmp_path, monkeypatch):
    def pretrain(recipe, *_):
        assert recipe.vision_steps == 0
        return pretrained(recipe)

    pretrained = vision_pretraining.pretrain
    monkeypatch.setattr(vision_pretraining, "pretrain", pretrain)
    said = job.of_recipe("scenes-smoke", tmp_path / "run", {"warmup": 99}).describe()
    assert "vision encoder, 4 steps" in said and "warm-up of 99 steps is longer" in said
    assert not (tmp_path / "run").exists()


def test_the_ways_whose_speed_is_compared_train_the_same(tmp_path):
    rows = throughput.run(tmp_path, batch=8, rounds=2, images=12)
    assert [row.name for row in rows] == ["plain", "packed", "cached", "both"]
    assert [row.loss for row in rows] == pytest.approx([rows[0].loss] * 4, rel=1e-4)
    tokens, operations = ({getattr(row, n) for row in rows} for n in ("tokens", "flops"))
    assert len(tokens) == 1 and len(operations) == 4  # padding, encoders: what is saved
    assert throughput.table(rows).splitlines()[1].split()[-1] == "1.00"


# Precision and launching


def test_weights_stay_in_float32_under_bfloat16(base, request):
    exact = engine(base).step()
    AcceleratorState._reset_state()  # else a process keeps its first precision
    request.addfinalizer(AcceleratorState._reset_state)
    made = engine(base, **{"run.mixed_precision": "bf16"})
    assert made.accelerator.mixed_precision == "bf16"
    seen = []
    layer = made.objective.model.language_model.model.layers[0].mlp
    layer.register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    found = made.step()
    assert seen and set(seen) == {torch.bfloat16}
    assert found["loss"] == pytest.approx(exact["loss"], rel=0.02) and found != exact
    everything = [*made.state.parameters.values(), *made.state.ema.values()]
    for moments in made.state.optimizer.state_dict()["state"].values():
        everything += moments.values()
    everything += [p.data for p in made.objective.parameters()]
    assert {x.dtype for x in everything} == {torch.float32}


def test_the_average_warms_up(base):
    """After n steps it has forgotten the first weights as (n) / (n + 9) says, up to its decay."""
    made = engine(base, **{"training.ema": 0.5, "training.lr": 1e-3})
    expected = {name: p.detach().clone() for name, p in made.state.parameters.items()}
    for step in range(1, 13):
        made.step()
        decay = min(0.5, step / (step + 9))
        for name, p in made.state.parameters.items():
            expected[name].lerp_(p.detach(), 1 - decay)
    for name, value in made.state.ema.items():
        torch.testing.assert_close(value, expected[name])


LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"]


@pytest.mark.slow
def test_accelerate_launches_two_processes_on_a_cpu(base, tmp_path):
    """The command of docs/training.md; its losses are those of one process."""
    root = str(Path(__file__).parent.parent.parent)
    env = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    changes = {"steps": 2, "run.log_every": 1, "run.save_every": 2}
    run(base, tmp_path / "1", **changes)
    shutil.copytree(base, tmp_path / "2" / "base")
    words = ["-m", "janusflow.train", "--recipe", "scenes-smoke", "--out", str(tmp_path / "2")]
    words += [f"--set={name}={value}" for name, value in changes.items()]
    words = [sys.executable, *LAUNCH, *words]
    done = subprocess.run(words, cwd=root, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = ([line["loss"] for line in log_of(tmp_path / count)] for count in "12")
    assert one == pytest.approx(two, rel=1e-5) and len(one) == 2
