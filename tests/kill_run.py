"""Kills a small training at random instants and starts it again, beside one that is left alone.

python -m tests.kill_run 20 7     (kills, seed)
"""

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from janusflow.training import checkpoints


def command(out: Path, steps: int) -> list[str]:
    train = ["-m", "janusflow.train", "--recipe", "scenes-smoke", "--out", str(out)]
    changes = [f"--set=steps={steps}", "--set=run.save_every=1"]
    return [sys.executable, *train, "--threads", "1", *changes]


def start(out: Path, steps: int) -> subprocess.Popen:
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return subprocess.Popen(command(out, steps), **quiet)


def main(kills: int, seed: int) -> None:
    rng, steps = random.Random(seed), 10 * kills
    folder = Path(tempfile.mkdtemp())
    whole, cut = folder / "whole", folder / "cut"
    assert start(whole, steps).wait() == 0
    lost = 0
    for _ in range(kills):
        before = checkpoints.complete(cut)[:1]
        process = start(cut, steps)
        while checkpoints.complete(cut)[:1] <= before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        process.wait()
        lost += checkpoints.complete(cut)[:1] < before
    after = checkpoints.complete(cut)[:1]
    assert start(cut, steps).wait() == 0
    ours, theirs = (checkpoints.latest(run)[1] for run in (cut, whole))
    same = ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    halves = [path.name for path in cut.glob("*.part")]
    print(f"{kills} kills, the last after step {after[0] if after else 0} of {steps}")
    print(f"steps lost {lost}, files half-written at the end {len(halves)}, weights equal: {same}")
    raise SystemExit(0 if same and not lost and not halves else 1)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
