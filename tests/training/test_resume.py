"""Runs that go on: with other numbers, after a failure, in another place."""

import json
import shutil

import pytest
import torch

from janusflow.training import checkpoints, config, job, loop

SMALL = {"steps": 12, "run.save_every": 2, "run.keep": 99, "pictures": 2, "questions": 1}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The first model of the smallest recipe."""
    out = tmp_path_factory.mktemp("runs") / "base"
    job.of_recipe("scenes-smoke", out, {**SMALL, "steps": 1}).run()
    return out / "base"


def planned(base, out, **changes) -> job.TrainJob:
    if not (out / "base").exists():
        shutil.copytree(base, out / "base")
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    return job.of_recipe("scenes-smoke", out, SMALL | changes)


def cut(out, step: int) -> None:
    """As if the run had been killed before it wrote a later checkpoint."""
    for path in out.glob("step-*"):
        if int(path.stem[5:]) > step:
            path.unlink()


def same(one, other, step: int) -> bool:
    ours, theirs = (checkpoints.read(out, step)[0] for out in (one, other))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_a_run_changed_on_the_way_and_killed_twice_is_the_one_done_at_once(base, tmp_path, capsys):
    parts, once = tmp_path / "parts", tmp_path / "once"
    planned(base, parts, steps=6).run()
    cut(parts, 4)  # the first kill
    changes = {"lr": 1e-4, "training__schedule": "cosine", "training__batch": 4}
    planned(base, parts, steps=9, **changes).run()
    assert "from step 4 on: training.lr 0.0015 -> 0.0001" in capsys.readouterr().err
    cut(parts, 8)  # the second
    planned(base, parts, steps=12, **changes, training__seed=3).run()
    assert len((parts / "changes.jsonl").read_text().splitlines()) == 2
    settings = config.read(parts / "settings.yaml")
    planned(base, once, **settings).run()
    assert same(parts, once, 12)
    lines = [json.loads(x) for x in (once / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 12


def test_a_finished_run_can_be_given_more_steps(base, tmp_path):
    more, once = tmp_path / "more", tmp_path / "once"
    planned(base, more, steps=4, training__schedule="constant").run()
    assert planned(base, more, steps=8, training__schedule="constant").run().finished
    planned(base, once, steps=8, training__schedule="constant").run()
    assert same(more, once, 8)


def test_a_run_goes_on_in_another_folder(base, tmp_path):
    planned(base, tmp_path / "one", steps=4).run()
    shutil.move(tmp_path / "one", tmp_path / "two")
    assert planned(base, tmp_path / "two", steps=6).run().state.step == 6
    loop.export(tmp_path / "two", tmp_path / "model")
