"""Trackers get every number of the log; the learning rate follows its schedule."""

import json
import shutil
import sqlite3

import pytest
from accelerate import tracking
from smoke_runs import engine

from janusflow.training import build as building
from janusflow.training import job


def test_a_tracker_gets_every_number_of_the_log(finished, tmp_path):
    tensorboard = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    shutil.copytree(finished / "base", tmp_path / "base")
    changes = {"run.trackers": "tensorboard", "run.log_every": 4}
    job.of_recipe("scenes-smoke", tmp_path, changes).run()
    lines = [json.loads(x) for x in (tmp_path / "log.jsonl").read_text().splitlines()]
    events = tensorboard.EventAccumulator(str(tmp_path / "janusflow")).Reload()
    seen = {e.step: e.value for e in events.Scalars("flow")}
    assert seen == pytest.approx({line["step"]: line["flow"] for line in lines}, rel=1e-6)


def tracked(finished, out, name: str) -> dict[int, dict]:
    """Trains with this tracker; the log's lines by their steps."""
    shutil.copytree(finished / "base", out / "base")
    changes = {"run.trackers": name, "run.log_every": 4, "run.watch_every": 1}
    job.of_recipe("scenes-smoke", out, changes).run()
    lines = [json.loads(x) for x in (out / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in lines}


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_other_trackers_get_the_same_numbers_through_accelerate(
    finished, tmp_path, monkeypatch, name
):
    """A stand-in for the library, behind accelerate's own interface."""
    seen, asked = {}, {}

    class Stand(tracking.GeneralTracker):
        name, requires_logging_directory = "stand-in", False

        def __init__(self, run_name, **kwargs):
            super().__init__()
            asked.update(project=run_name, **kwargs)

        tracker = property(lambda self: self)

        def store_init_configuration(self, values):
            pass

        def log(self, values, step=None, **_):
            seen[step] = values

        def finish(self):
            asked["finished"] = True

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, name, Stand)
    for module in (tracking, building):
        monkeypatch.setattr(module, "get_available_trackers", lambda: [tracking.LoggerType(name)])
    lines = tracked(finished, tmp_path / "mine", name)
    assert asked["project"] == "janusflow" and asked["name"] == "mine" and asked["finished"]
    assert sorted(seen) == sorted(lines) == [4, 8]
    for step, line in lines.items():
        assert seen[step]["loss"] == line["loss"] and "step" not in seen[step]
        assert seen[step]["gradient_cosine"] == line["gradient_cosine"]
        for i, value in enumerate(line["flow_by_time"]):
            assert seen[step].get(f"flow_by_time/{i}") == value


def test_a_tracker_that_is_not_there_is_asked_for(finished, monkeypatch):
    monkeypatch.setattr(building, "get_available_trackers", lambda: [])
    with pytest.raises(ModuleNotFoundError, match="pip install wandb"):
        engine(finished / "base", **{"run.trackers": "wandb"})


def test_trackio_itself_keeps_the_numbers(finished, tmp_path, monkeypatch):
    trackio = pytest.importorskip("trackio")
    monkeypatch.setattr(trackio.utils, "TRACKIO_DIR", tmp_path)
    monkeypatch.setattr(trackio.sqlite_storage, "TRACKIO_DIR", tmp_path)
    lines = tracked(finished, tmp_path / "mine", "trackio")
    with sqlite3.connect(tmp_path / "janusflow.db") as file:
        rows = dict(file.execute("select step, metrics from metrics"))
    kept = {step: json.loads(found)["loss"] for step, found in rows.items()}
    assert kept == pytest.approx({step: line["loss"] for step, line in lines.items()})


def test_wandb_itself_runs_without_a_network(finished, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    lines = tracked(finished, tmp_path / "mine", "wandb")
    (file,) = (tmp_path / "mine" / "wandb").glob("offline-run-*/*.wandb")
    content = file.read_bytes()
    assert b"gradient_cosine" in content and all(
        repr(line["loss"]).encode() in content for line in lines.values()
    )
