"""A new solver, grid or guidance rule is one function, and everything finds it."""

import inspect
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


@pytest.mark.parametrize("add", [add_a_solver, add_a_grid, add_a_rule])
def test_adding_one_takes_fewer_than_fifteen_lines(add):
    assert len(inspect.getsource(add).splitlines()) < 15


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
