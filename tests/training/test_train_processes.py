"""Training over several processes, and runs that are stopped or killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from smoke_runs import same

from janusflow.training import checkpoints


def command(out: Path, *more: str) -> list[str]:
    changes = ["steps=40", "run.save_every=1", "run.log_every=1", *more]
    train = ["-m", "janusflow.train", "--recipe", "scenes-smoke", "--out", str(out)]
    return [sys.executable, *train, "--threads", "1", *(f"--set={item}" for item in changes)]


def environment(**more: str) -> dict:
    root = str(Path(__file__).parent.parent.parent)
    return {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", **more}


def start(*args, **kwargs) -> subprocess.Popen:
    quiet = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment())
    return subprocess.Popen(*args, **(quiet | kwargs))


def after(out: Path, step: int, process: subprocess.Popen) -> None:
    """Waits until the run has written this step."""
    until = time.monotonic() + 90
    while not any(found >= step for found in checkpoints.complete(out)):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.slow
def test_sigterm_writes_a_checkpoint_and_kill_loses_nothing(finished, tmp_path):
    out, whole = tmp_path / "run", tmp_path / "whole"
    for folder in (out, whole):
        shutil.copytree(finished / "base", folder / "base")
    last = "run.save_every=40"
    assert start(command(whole, last)).wait(timeout=120) == 0
    killed = start(command(out))
    after(out, 2, killed)
    killed.kill()
    killed.wait()
    stopped = start(command(out, last))
    first = checkpoints.complete(out)[0]
    log = out / "log.jsonl"
    until = time.monotonic() + 90
    while json.loads(log.read_text().splitlines()[-1])["step"] <= first + 1:
        assert stopped.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    stopped.send_signal(signal.SIGTERM)
    said = stopped.communicate(timeout=60)[0]
    assert stopped.returncode == 143 and "--resume" not in said
    assert checkpoints.complete(out)[0] > first
    assert start(command(out, last)).wait(timeout=120) == 0
    ours, theirs = checkpoints.latest(out)[1], checkpoints.latest(whole)[1]
    assert same(ours, theirs)
    assert not list(out.glob("*.part"))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["DDP", "FSDP2"])
def test_two_processes_train_as_one_with_the_whole_batch(finished, tmp_path, way):
    """Losses and weights agree to float32's rounding, and each goes on from the other's file."""
    folders = {count: tmp_path / str(count) for count in (1, 2)}
    for folder in folders.values():
        shutil.copytree(finished / "base", folder / "base")
    root = str(Path(__file__).parent.parent.parent)
    fsdp = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    fsdp["FSDP_AUTO_WRAP_POLICY"] = "TRANSFORMER_BASED_WRAP"
    launchers = {
        1: [sys.executable, "-m"],
        2: [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node=2",
            "-m",
        ],
    }

    def train(count: int, folder: Path, steps: int) -> list[float]:
        more = fsdp if way == "FSDP2" and count == 2 else {}
        words = [*launchers[count], "checks.two_processes", str(folder), str(steps)]
        env = environment(ACCELERATE_USE_CPU="true", **more)
        done = subprocess.run(words, cwd=root, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        said = next(json.loads(x) for x in done.stdout.splitlines() if x.startswith("{"))
        assert said["world"] == count
        return said["losses"]

    one, two = (train(count, folder, 2) for count, folder in folders.items())
    assert one == pytest.approx(two, rel=1e-6)
    assert checkpoints.is_sharded(folders[2], 2) == (way == "FSDP2")
    ours, theirs = (checkpoints.latest(folder)[1] for folder in folders.values())
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-5)
    shutil.copytree(folders[2], tmp_path / "alone")
    crossed = train(1, tmp_path / "alone", 3)  # one process goes on from two processes' checkpoint
    assert crossed == pytest.approx(train(2, folders[1], 3), rel=1e-5)
    assert crossed == pytest.approx(train(2, folders[2], 3), rel=1e-5)  # two take their shards
    if way == "FSDP2":
        checkpoints.merge(folders[2])
        assert not checkpoints.is_sharded(folders[2], 3)


@pytest.mark.slow
def test_two_processes_make_their_first_model_and_hold_one_folder(tmp_path):
    """From the command line, in a folder where nothing is yet."""
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    train = ["-m", "janusflow.train", "--recipe", "scenes-smoke", "--out", str(tmp_path)]
    env = environment(ACCELERATE_USE_CPU="true")
    words += [*train, "--threads", "1", "--set=steps=2"]
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert checkpoints.complete(tmp_path) == [2]
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 1
