"""A new solver, grid or guidance rule is one function, and everything finds it."""

import json
import sys
from itertools import pairwise

import pytest
import torch
from PIL import Image

import samplers
from janusflow.cli import main
from samplers import guidance
from samplers.benchmark import equal_calls


def add_a_solver():
    @samplers.solver(order=1, calls=1)
    def leap(v, x, ts):
        """Euler's rule, under another name."""
        for t, s in pairwise(ts):
            x = x + (s - t) * v(x, t)
            yield x


def add_a_grid():
    @samplers.grid
    def cubic(n):
        """t = (i / n)^3."""
        return (torch.arange(n + 1, dtype=torch.float64) / n) ** 3


def add_a_rule():
    @samplers.rule
    def halved(weight):
        """Classifier-free guidance at half the weight."""
        return guidance.cfg(weight / 2)


@pytest.fixture
def added():
    registries = (samplers.SOLVERS, samplers.GRIDS, samplers.RULES)
    before = [set(registry) for registry in registries]
    for add in (add_a_solver, add_a_grid, add_a_rule):
        add()
    yield
    for registry, known in zip(registries, before, strict=True):
        for name in set(registry) - known:
            del registry[name]


@pytest.mark.usefixtures("added")
def test_the_benchmark_measures_the_new_solver():
    field = samplers.PROBLEMS["bend"]()
    noise = field.noise(8)
    report = equal_calls.run(
        field.velocity, noise, calls=[4], others=False, pilot=False, overhead=False
    )
    rows = {row.solver: row for row in report.rows}
    assert rows["leap"].e == pytest.approx(rows["euler"].e)


@pytest.mark.usefixtures("added")
def test_the_command_line_takes_all_three(monkeypatch, tiny_folder, tmp_path):
    out = tmp_path / "a.png"
    words = ["generate", "a star", "-o", out, "--model", tiny_folder, "--steps", "2"]
    words += ["--sampler", "leap", "--grid", "cubic", "--guidance-scale", "halved:4"]
    monkeypatch.setattr(sys, "argv", ["janusflow", *map(str, words)])
    main.main()
    told = Image.open(out).text
    assert (told["sampler"], told["grid"], told["guidance_scale"]) == ("leap", "cubic", "halved:4")


PLUGIN = """
from janusflow.evaluation.tasks import image_task
from janusflow.training.alignment import teachers

@image_task(prompts=["a red star", "a red circle"])
def colours(image, prompt):
    return {"red": image.getpixel((0, 0))[0] / 255, "square": image.width == image.height}

@teachers.teacher
def halves(wanted):
    return teachers.Encoder(wanted.model.vision_und_enc_model, wanted.model.config.vision.width)
"""


@pytest.fixture
def plugin(tmp_path):
    from janusflow.evaluation.tasks import TASKS
    from janusflow.training.alignment.teachers import TEACHERS

    path = tmp_path / "users_own.py"
    path.write_text(PLUGIN)
    before = [(registry, set(registry)) for registry in (TASKS, TEACHERS, sys.modules)]
    yield path
    for registry, names in before:
        for name in set(registry) - names:
            del registry[name]


def test_a_task_of_ones_own_is_evaluated(janusflow, tiny_folder, tmp_path, plugin):
    out = tmp_path / "out"
    words = ["evaluate", "--model", tiny_folder, "--task", "colours", "--plugin", plugin, "-o", out]
    words += ["--seeds", 1, "--num-inference-steps", 1, "--no-figures"]
    code, _, err = janusflow(*words)
    assert code == 0, err
    report = json.loads((out / "report.json").read_text())
    overall = report["scores"]["colours"]["overall"]
    assert overall["items"] == 2 and overall["scores"]["square"]["score"] == 1
    assert 0 <= overall["scores"]["red"]["score"] <= 1
    (tmp_path / "others.txt").write_text("a blue star\n")
    code, _, err = janusflow(*words, "--prompts", tmp_path / "others.txt")
    assert code and "holds answers with digests" in err


def test_a_teacher_of_ones_own_is_trained_with(janusflow, tiny_folder, tmp_path, plugin):
    (tmp_path / "data").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "data" / "a.png")
    (tmp_path / "data" / "a.txt").write_text("a black square")
    words = ["train", "--model", tiny_folder, "--stage", 2, "--data", tmp_path / "data"]
    words += ["--plugin", plugin, "--set", "alignment.teacher=halves", "--out", tmp_path / "run"]
    code, _, err = janusflow(*words, "--set", "training.steps=1", "--set", "training.batch=1")
    assert code == 0, err
