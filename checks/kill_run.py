"""Kills a small training at random instants, resumes it, and compares it with one that ran through.

python -m checks.kill_run 20 7
python -m checks.kill_run 5 7 fsdp      (two processes under FSDP2)
"""

import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch

from janusflow.training import checkpoints
from samplers import command_line

FSDP = {
    "ACCELERATE_USE_CPU": "true",
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
}
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def start(out: Path, steps: int, fsdp: bool) -> subprocess.Popen:
    """Starts a training in a process group of its own."""
    train = ["-m", "janusflow.train", "--recipe", "scenes-smoke", "--out", str(out)]
    changes = [f"--set=steps={steps}", "--set=run.save_every=1", f"--set=run.sharded={fsdp}"]
    words = [sys.executable, *(TORCHRUN if fsdp else []), *train, "--threads", "1", *changes]
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    env = {**os.environ, **(FSDP if fsdp else {})}
    return subprocess.Popen(words, env=env, start_new_session=True, **quiet)


def kill(process: subprocess.Popen) -> None:
    """Kills all processes of the training at once, like a machine that goes down.

    torchrun's workers are in sessions of their own, so they are found as descendants.
    """
    try:
        first = psutil.Process(process.pid)
        every = [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        every = []  # it ended by itself
    for one in every:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(every)
    process.wait()


def main(kills: int, seed: int, fsdp: bool = False) -> None:
    rng, steps = random.Random(seed), 10 * kills
    folder = Path(tempfile.mkdtemp())
    whole, cut = folder / "whole", folder / "cut"
    assert start(whole, steps, fsdp).wait() == 0
    lost = 0
    for _ in range(kills):
        before = checkpoints.complete(cut)[:1]
        process = start(cut, steps, fsdp)
        while checkpoints.complete(cut)[:1] <= before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        kill(process)
        lost += checkpoints.complete(cut)[:1] < before
    after = checkpoints.complete(cut)[:1]
    assert start(cut, steps, fsdp).wait() == 0
    ours, theirs = (checkpoints.latest(run)[1] for run in (cut, whole))
    same = ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    halves = [path.name for path in cut.rglob("*.part")]
    files = len(checkpoints.files(cut, steps))
    print(f"{kills} kills, the last after step {after[0] if after else 0} of {steps}")
    print(f"steps lost {lost}, files half-written at the end {len(halves)}, weights equal: {same}")
    print(f"files of a checkpoint: {files}")
    raise SystemExit(0 if same and not lost and not halves and files == 1 + fsdp else 1)


if __name__ == "__main__":
    main(
        **command_line.positionals(
            __doc__,
            kills=(int, ..., "Kills the training this many times."),
            seed=(int, ..., "Seeds the random instants."),
            fsdp=(bool, False, "The word fsdp trains in two processes under FSDP2."),
        )
    )
