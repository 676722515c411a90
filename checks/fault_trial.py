"""One command of `janusflow` that meets one fault, in a process of its own."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from checks.fault_jobs import Job

LONGEST = 90.0  # seconds, after which a command hangs
ADVICE = ("same command", "choose", "delete")


class Child:
    """A command of `janusflow` in a process of its own, forked so that nothing is imported anew."""

    def __init__(self, words: list, log: Path, before: Callable[[], None] = lambda: None):
        self.log, self.code = log, None
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(_command(words, log, before))

    def send(self, number: int) -> None:
        if not self.ended():
            os.kill(self.pid, number)

    def ended(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is not None

    def wait(self, seconds: float = LONGEST) -> bool:
        """Returns whether it ended in time."""
        until = time.monotonic() + seconds
        while not self.ended() and time.monotonic() < until:
            time.sleep(0.005)
        return self.ended()

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")


def _command(words: list, log: Path, before: Callable[[], None]) -> int:
    handle = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.argv = ["janusflow", *map(str, words)]
    try:
        from janusflow.cli import main

        torch.set_num_threads(1)
        before()
        main.main()
        code = 0
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


@dataclass
class Trial:
    """One command that meets one fault."""

    job: Job
    home: Path  # the model, the prompts
    folder: Path  # of this trial
    rng: random.Random
    seconds: float  # of an undisturbed run
    problems: list[str] = field(default_factory=list)
    before: Callable[[], None] = lambda: None  # in the child
    number: int = 0
    words: Callable | None = None

    @property
    def out(self) -> Path:
        return self.folder / "disk" / "out"

    def start(self, before: Callable[[], None] | None = None) -> Child:
        self.number += 1
        log = self.folder / f"log-{self.number}.txt"
        words = (self.words or self.job.words)(self.home, self.out)
        return Child(words, log, before or self.before)

    def midway(self, child: Child, strike: Callable[[], None]) -> dict[str, str]:
        """Strikes at a random instant of the run, and returns what was complete then."""
        time.sleep(self.rng.uniform(0, self.seconds))
        while True:
            child.send(signal.SIGSTOP)
            whole = self.job.whole(self.out)
            try:
                strike()
            except subprocess.CalledProcessError:  # a file is open for writing just now
                child.send(signal.SIGCONT)
                time.sleep(0.003)
                continue
            child.send(signal.SIGCONT)
            return whole

    def ends(self, child: Child, *codes: int) -> None:
        if not child.wait():
            self.problems.append("hang")
            child.send(signal.SIGKILL)
            child.wait()
        said = child.said
        if "Traceback" in said or child.code not in codes:
            self.problems.append("crash")
            print(f"code {child.code}: {said[-1500:]}", file=sys.stderr)
        elif child.code:
            last = said.strip().splitlines()[-1:]
            clear = last and last[0].startswith("janusflow: ")
            if not clear or not any(word in last[0] for word in ADVICE):
                self.problems.append("unclear")
                print(f"code {child.code}: {last}", file=sys.stderr)

    def kept(self, whole: dict[str, str]) -> None:
        now = self.job.whole(self.out)
        if any(now.get(name) != value for name, value in whole.items()):
            self.problems.append("loss")

    def goes_on(self, end: dict) -> None:
        """Runs the same command again, to the end of an undisturbed run."""
        self.ends(self.start(lambda: None), 0)
        try:
            if self.job.differs(self.job.end(self.out), end):
                self.problems.append("other end")
        except (OSError, ValueError) as error:
            print(error, file=sys.stderr)
            self.problems.append("other end")
