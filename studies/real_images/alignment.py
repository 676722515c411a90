"""Measures whether alignment helps on real images: a small model of emoji for each teacher.

    python -m studies.real_images.alignment --data emoji --features lite0 --steps 3000 --seeds 3

Arms of a seed see the same samples, noise and times. Each ends in the flow loss on held-out
concepts and the scores of `studies.real_images.emoji`; a run that is there is not done again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from janusflow.training import job, loop
from janusflow.training.held_out import history
from samplers import command_line
from studies.real_images import emoji

STUDENT = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776}  # t of 97.5 %, by the number of seeds
EVALUATED = 128  # held-out samples of the loss
LITE_SIZE = 128  # pixels that the teachers see images at, so that they have as many
DINO_SIZE = 56  # tokens as the model, 4 x 4


def arms(lite0: Path) -> dict[str, dict | str]:
    """Returns the alignment of each arm, as settings take it."""
    real = {
        "teacher": "timm:tf_efficientnet_lite0",
        "teacher_weights": str(lite0 / "model.safetensors"),
        "teacher_size": LITE_SIZE,
    }
    dino = {"teacher": "timm:vit_small_patch14_dinov2", "teacher_size": DINO_SIZE}
    return {
        "none": "none",
        "own encoder": {"teacher": "own"},
        "EfficientNet": real,
        "DINOv2's shape, random weights": dino | {"teacher_weights": "none"},
    }


def trained(args: argparse.Namespace, arm: str, alignment, seed: int) -> dict:
    """Returns the scores of one run, which is done if it is missing."""
    out = args.out / f"{arm.replace(', ', '-').replace(' ', '-')}-{seed}"
    done = out / "scores.json"
    if not done.exists():
        own = {"steps": args.steps, "seed": seed, "alignment": alignment}
        run = {"run.evaluate_every": args.steps, "run.evaluate_count": EVALUATED}
        run |= {"run.mixed_precision": args.precision}
        if not job.of_recipe("emoji-pico", out, own | run, data=[args.data]).run().finished:
            raise SystemExit(f"{out} was interrupted; the same command resumes")
        loop.export(out, out / "model")
        done.write_text(json.dumps(scored(args, out)), encoding="utf-8")
    return json.loads(done.read_text(encoding="utf-8"))


def scored(args: argparse.Namespace, out: Path) -> dict:
    asked = dict(model=out / "model", data=args.data, features=args.features, count=args.count)
    how = dict(shown=1, steps=args.sampling_steps, guidance=2.0, seed=0, figures=None, note="")
    found = emoji.measure(SimpleNamespace(**asked, **how))
    by_split = {row["prompts"]: row["own"][0] for row in found["rows"]}
    return {
        "held-out loss": history(out)[-1]["held_out"],
        "kid": found["distances"]["kid against train"][0],
        "retrieval, train": by_split["train"],
        "retrieval, held-out": by_split["test"],
    }


def row(arm: str, runs: Sequence[dict], bare: Sequence[dict]) -> dict:
    """Returns means over the seeds, and the loss's difference to no alignment: mean, low, high."""
    means = {name: round(float(np.mean([run[name] for run in runs])), 4) for name in runs[0]}
    apart = [a["held-out loss"] - b["held-out loss"] for a, b in zip(runs, bare, strict=True)]
    found = {"arm": arm, "seeds": len(runs)} | means
    if len(runs) == 1:
        return found | {"loss - none": round(apart[0], 4)}
    mean, reach = np.mean(apart), STUDENT[len(apart)] * np.std(apart, ddof=1) / len(apart) ** 0.5
    bounds = (mean, mean - reach, mean + reach)
    return found | {"loss - none": [round(float(x), 4) for x in bounds]}


def arguments(*words: str) -> argparse.Namespace:
    """The study's options from the command line, or from these words."""
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="Reads the folder that `janusflow data emoji` wrote.",
    )
    parser.add_argument(
        "--features", type=Path, required=True, help="Reads EfficientNet from this folder."
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/emoji-alignment"),
        help="Stores the runs in this folder.",
    )
    parser.add_argument(
        "--steps", type=int, default=3000, help="Trains each arm for this many steps."
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=1,
        choices=range(1, 6),
        help="Trains each arm with this many seeds.",
    )
    parser.add_argument(
        "--count", type=int, default=100, help="Draws this many prompts of each split."
    )
    parser.add_argument(
        "--sampling-steps", type=int, default=20, help="Takes this many sampling steps."
    )
    parser.add_argument(
        "--precision",
        default="auto",
        choices=("auto", "no", "bf16"),
        help="Sets run.mixed_precision of the trainings.",
    )
    return parser.parse_args(words or None)


def table(args: argparse.Namespace) -> list[dict]:
    """A row for every arm, after the runs that are not there yet."""
    found = {
        arm: [trained(args, arm, how, seed) for seed in range(args.seeds)]
        for arm, how in arms(args.features).items()
    }
    return [row(arm, runs, found["none"]) for arm, runs in found.items()]


if __name__ == "__main__":
    print(json.dumps(table(arguments()), indent=1))
