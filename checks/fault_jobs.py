"""Work that is interrupted by checks.faults: the commands of `janusflow`, small, and what of their
output is whole.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from janusflow.training import checkpoints

STEPS = 10  # of a training
PROMPTS = [
    f"{n} {c} {s}" for n in ("a", "two") for c in ("red", "blue") for s in ("circle", "ring")
]


@dataclass(frozen=True)
class Job:
    """`words(home, out)` is the command; `whole(out)` maps what is complete there to its digest;
    `end(out)` is what the finished work holds, as arrays by name.
    """

    name: str
    words: Callable[[Path, Path], list]
    whole: Callable[[Path], dict[str, str]]
    end: Callable[[Path], dict[str, np.ndarray]]
    rounding: float = 0.0  # by which two finished works may differ

    def prepare(self, home: Path, out: Path) -> None:
        """Puts what is not under test in place: a training's first model."""
        out.mkdir(parents=True)
        if self.name == "train" and (home / "base").exists():
            shutil.copytree(home / "base", out / "base")

    def differs(self, a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
        return a.keys() != b.keys() or any(
            a[k].shape != b[k].shape or np.abs(a[k] - b[k]).max(initial=0) > self.rounding
            for k in a
        )


def train(_home: Path, out: Path, keep: int = 99) -> list:
    own = {"steps": STEPS, "run.save_every": 1, "run.keep": keep, "run.log_every": 1}
    changes = [f"--set={name}={value}" for name, value in own.items()]
    return ["train", "--recipe", "scenes-smoke", "--out", out, "--threads", 1, *changes]


def scenes(home: Path, out: Path) -> list:
    return ["evaluate", *_small(home, out), "--seeds", 2, "--steps", 2]


def answers(home: Path, out: Path) -> list:
    return ["evaluate", *_small(home, out), "--task", "scenes-vqa"]


def _small(home: Path, out: Path) -> list:
    return ["--model", home / "model", "--out", out, "--prompts", 1, "--batch-size", 3]


def generate(home: Path, out: Path) -> list:
    (home / "prompts.txt").write_text("\n".join(PROMPTS))
    own = ["--prompts", home / "prompts.txt", "--steps", 2, "--batch-size", 2]
    return ["generate", "--model", home / "model", "--out", out, *own]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def steps(out: Path) -> dict[str, str]:
    found = {}
    for step in checkpoints.complete(out):
        try:
            checkpoints.read(out, step)
        except ValueError:
            continue
        for path in checkpoints.files(out, step):
            found[path.name] = digest(path)
    return found


def pngs(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): digest(path) for path in out.rglob("[!.]*.png")}


def lines(out: Path) -> dict[str, str]:
    try:
        rows = json.loads((out / "answers.json").read_text())
    except (OSError, ValueError):
        return {}
    return {str(row[:-1]): str(row[-1]) for row in rows}


def weights(out: Path) -> dict[str, np.ndarray]:
    step, tensors, _ = checkpoints.latest(out)
    found = {name: x.float().numpy() for name, x in tensors.items()}
    return found | {"step": np.array(step)}


def pixels(out: Path) -> dict[str, np.ndarray]:
    return {name: np.asarray(Image.open(out / name), int) for name in pngs(out)}


def texts(out: Path) -> dict[str, np.ndarray]:
    return {
        name: np.frombuffer(text.encode(), np.uint8).astype(int)
        for name, text in lines(out).items()
    }


# Images of other batches differ by rounding.
JOBS = {
    "train": Job("train", train, steps, weights),
    "evaluate": Job("evaluate", scenes, pngs, pixels),
    "answers": Job("answers", answers, lines, texts),
    "generate": Job("generate", generate, pngs, pixels, 2),
}


def model(run: Path, folder: Path) -> None:
    """Returns a small model to evaluate, from a finished training."""
    from janusflow.training import loop

    loop.export(run, folder, torch.float32)
