"""The faults of checks.faults: what strikes, and how it is mended."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from checks.fault_jobs import JOBS, Job, train
from checks.fault_trial import Child, Trial

SIZE = 64 * 2**20  # of the small disk
FAULTS: dict[str, Fault] = {}


@dataclass(frozen=True)
class Fault:
    run: Callable[[Trial, dict], None]
    jobs: tuple[str, ...]
    root: bool
    small: bool  # on a small disk of its own

    def __call__(self, job: Job, home: Path, rng: random.Random, seconds: float, end: dict):
        """Returns the problems of one trial."""
        folder = Path(tempfile.mkdtemp(prefix="trial-", dir=home))
        os.chmod(folder, 0o755)
        trial = Trial(job, home, folder, rng, seconds)
        with disk(folder / "disk") if self.small else plain(folder / "disk"):
            job.prepare(home, trial.out)
            self.run(trial, end)
        shutil.rmtree(folder)
        return trial.problems


def fault(*jobs: str, root: bool = False, small: bool = False):
    def register(run: Callable[[Trial, dict], None]):
        FAULTS[run.__name__.replace("_", " ")] = Fault(run, jobs or tuple(JOBS), root, small)
        return run

    return register


@contextmanager
def plain(path: Path) -> Iterator[None]:
    path.mkdir()
    yield


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Mounts a tmpfs of SIZE bytes."""
    path.mkdir()
    sh("mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=755", "tmpfs", path)
    try:
        yield
    finally:
        sh("umount", "-l", path)


def sh(*words) -> None:
    subprocess.run([*map(str, words)], check=True, capture_output=True)


@fault()
def sigkill(trial: Trial, end: dict) -> None:
    for _ in range(2):
        child = trial.start()
        trial.kept(trial.midway(child, partial(child.send, signal.SIGKILL)))
        child.wait()
    trial.goes_on(end)


@fault()
def sigterm(trial: Trial, end: dict) -> None:
    child = trial.start()
    whole = trial.midway(child, lambda: child.send(signal.SIGTERM))
    trial.ends(child, 143)
    trial.kept(whole)
    trial.goes_on(end)


@fault(root=True, small=True)
def full_disk(trial: Trial, end: dict) -> None:
    ballast = trial.folder / "disk" / "ballast"

    def fill() -> None:
        room = shutil.disk_usage(ballast.parent).free
        leave = trial.rng.choice([0, 0, 4096, 100_000, 1_000_000])
        with open(ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, room - leave))

    _strikes(trial, end, fill, lambda: ballast.unlink())


@fault(root=True, small=True)
def read_only_folder(trial: Trial, end: dict) -> None:
    place = trial.folder / "disk"

    def remount(how: str) -> None:
        sh("mount", "-o", f"remount,{how}", place)

    _strikes(trial, end, lambda: remount("ro"), lambda: remount("rw"))


@fault(root=True)
def lost_permission(trial: Trial, end: dict) -> None:
    """Makes the folder immutable, which root has to obey too."""

    def forbid(how: str) -> None:
        sh("chattr", "-R", how, trial.out)

    _strikes(trial, end, lambda: forbid("+i"), lambda: forbid("-i"))


def _strikes(trial: Trial, end: dict, strike: Callable, mend: Callable) -> None:
    """Strikes midway, or in one of four trials before the start."""
    early = trial.rng.random() < 0.25
    if early:
        strike()
    child = trial.start()
    whole = {} if early else trial.midway(child, strike)
    trial.ends(child, 0, 2)
    mend()
    trial.kept(whole)
    trial.goes_on(end)


@fault()
def clock_jumps(trial: Trial, end: dict) -> None:
    """Shifts the clock of every reading by up to ten years; files come from the future."""
    seed = trial.rng.random()

    def jumps() -> None:
        rng, real = random.Random(seed), time.time
        time.time = lambda: max(0.0, real() + rng.uniform(-3e8, 3e8))

    trial.before = jumps
    child = trial.start()
    whole = trial.midway(child, lambda: child.send(signal.SIGKILL))
    child.wait()
    for path in trial.out.rglob("*"):
        when = time.time() + trial.rng.uniform(-3e8, 3e8)
        os.utime(path, (when, when))
    trial.kept(whole)
    trial.ends(trial.start(), 0)
    trial.kept(whole)
    if trial.job.differs(trial.job.end(trial.out), end):
        trial.problems.append("other end")


@fault()
def damaged_newest(trial: Trial, end: dict) -> None:
    """Damages the one or two newest files after a kill; trainings keep one checkpoint only."""
    keep = trial.rng.choice([1, 2, 99])
    if trial.job.name == "train":
        trial.words = lambda home, out: train(home, out, keep)
    child = trial.start()
    trial.midway(child, lambda: child.send(signal.SIGKILL))
    child.wait()
    pattern = {"train": "step-*.safetensors", "answers": "answers.json"}
    found = [p for p in trial.out.rglob(pattern.get(trial.job.name, "[!.]*.png")) if p.is_file()]
    newest = sorted(found, key=lambda path: path.stat().st_mtime)[-trial.rng.choice([1, 2]) :]
    went_off = trial.folder / "went off"
    for path in newest:
        damage(path, trial.rng, went_off)
    again = trial.start()
    again.wait()
    if again.code == 2 and "delete" in again.said:  # the message says what to do
        trial.ends(again, 2)
        for path in newest:
            path.unlink()
    else:
        trial.ends(again, 0)
    trial.goes_on(end)
    if went_off.exists():
        trial.problems.append("crash")


def damage(path: Path, rng: random.Random, went_off: Path) -> None:
    from checks.hostile import bomb, zipped

    content = bytearray(path.read_bytes())
    for _ in range(3):
        content[rng.randrange(len(content))] ^= rng.randrange(1, 256)
    size = len(content)
    ways = [
        lambda: bytes(content),
        lambda: path.read_bytes()[: rng.randrange(size)],
        lambda: bytes(size),
        lambda: b"",
        lambda: rng.randbytes(size),
        lambda: bomb(went_off),
        lambda: zipped(went_off),
    ]
    path.write_bytes(rng.choice(ways)())


@fault()
def two_runs(trial: Trial, end: dict) -> None:
    first = trial.start()
    time.sleep(trial.rng.uniform(0, trial.seconds / 2))
    second = trial.start()
    trial.ends(second, 0, 2)
    trial.ends(first, 0, 2)
    if first.code and second.code:
        trial.problems.append("crash")
    if trial.job.differs(trial.job.end(trial.out), end):
        trial.problems.append("other end")


@fault("train")
def worker_death(trial: Trial, end: dict) -> None:
    """Kills one of two processes; the other ends by itself, and one alone takes over."""
    port = trial.rng.randrange(20_000, 60_000)

    def member(rank: int) -> Callable[[], None]:
        def join() -> None:
            os.environ |= dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
            os.environ |= dict(LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
            os.environ |= dict(MASTER_PORT=str(port), ACCELERATE_USE_CPU="true")

        return join

    pair: list[Child] = [trial.start(member(rank)) for rank in (0, 1)]
    victim = trial.rng.choice([0, 1])
    until = time.monotonic() + 30
    while not trial.job.whole(trial.out) and time.monotonic() < until:
        time.sleep(0.01)
    whole = trial.midway(pair[victim], lambda: pair[victim].send(signal.SIGKILL))
    trial.ends(pair[1 - victim], 0, 2)
    pair[victim].wait()
    trial.kept(whole)
    trial.job = Job("train", train, trial.job.whole, trial.job.end, 1e-4)
    trial.goes_on(end)
