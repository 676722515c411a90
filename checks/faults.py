"""Injects faults into training, evaluation and generation, and counts what goes wrong afterwards.

    python -m checks.faults [FAULT,FAULT|all] [JOB,JOB|all] [TRIALS] [SEED]

Each trial starts a command, records at a random instant which files are complete, injects a fault,
removes it, and runs the command again. Counted are tracebacks, hangs, complete files that became
incomplete, results other than an undisturbed run's, and messages that do not say what to do.
Faults of the disk and of permissions need root: they mount a small tmpfs or make files immutable.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}  # children are forked
import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

from checks import fault_jobs
from checks.fault_jobs import JOBS, Job
from checks.fault_kinds import FAULTS
from checks.fault_trial import Trial
from samplers import command_line


def measure(home: Path, job: Job) -> tuple[dict, float]:
    """Returns what an undisturbed run ends in, and its seconds."""
    trial = Trial(job, home, home / f"undisturbed-{job.name}", random.Random(0), 0)
    job.prepare(home, trial.out)
    started = time.monotonic()
    trial.ends(trial.start(), 0)
    if trial.problems:
        raise SystemExit(f"{job.name} fails without a fault")
    return job.end(trial.out), time.monotonic() - started


def home_of(folder: Path) -> Path:
    """Returns the first model of a training, and a model to evaluate."""
    job = JOBS["train"]
    measure(folder, job)
    run = folder / "undisturbed-train" / "disk" / "out"
    shutil.copytree(run / "base", folder / "base")
    fault_jobs.model(run, folder / "model")
    shutil.rmtree(folder / "undisturbed-train")
    subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)
    return folder


def main(fault: str, job: str, trials: int, seed: int) -> None:
    root = os.geteuid() == 0
    chosen = [
        n
        for n, one in FAULTS.items()
        if {"all", n} & set(fault.split(",")) and (root or not one.root)
    ]
    jobs = [one for name, one in JOBS.items() if {"all", name} & set(job.split(","))]
    if not chosen or not jobs:
        raise SystemExit(f"choose all or of {', '.join(FAULTS)}; and all or of {', '.join(JOBS)}")
    folder, bad = Path(tempfile.mkdtemp(prefix="faults-")), 0
    os.chmod(folder, 0o755)
    home = home_of(folder)
    print("| fault | work | injected | crashes | hangs | losses | other ends | unclear |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for one in jobs:
        end, seconds = measure(home, one)
        for name in chosen:
            if one.name not in FAULTS[name].jobs:
                continue
            counts = Counter()
            for i in range(trials):
                rng = random.Random(f"{seed} {name} {one.name} {i}")
                counts.update(FAULTS[name](one, home, rng, seconds, end))
            kinds = ("crash", "hang", "loss", "other end", "unclear")
            cells = " | ".join(str(counts[kind]) for kind in kinds)
            print(f"| {name} | {one.name} | {trials} | {cells} |", flush=True)
            bad += sum(counts.values())
    shutil.rmtree(folder)
    raise SystemExit(bool(bad))


if __name__ == "__main__":
    main(
        **command_line.positionals(
            __doc__,
            fault=(str, "all", f"Injects these of {', '.join(FAULTS)}, with commas; or all."),
            job=(str, "all", f"Runs these of {', '.join(JOBS)}, with commas; or all."),
            trials=(int, 5, "Injects each fault this many times. The default is 5."),
            seed=(int, 0, "Seeds the random instants. The default is 0."),
        )
    )
