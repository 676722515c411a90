"""Scores best-of-n sampling by the model's own answers, against chance and the best possible.

    python -m studies.best_of_n janusflow/scenes --quality fast --prompts 600 --candidates 8

Every prompt of the split "test" gets the same candidates for all n. The kept image of n candidates
is the one that the verifier scores highest. Chance is the mean over candidates, and the ceiling
counts a prompt as right if any of its first n candidates is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from janusflow import JanusFlowPipeline
from janusflow.evaluation.intervals import wilson
from janusflow.evaluation.tasks.scenes import ImageJob
from janusflow.pipelines.verifiers import find
from janusflow.scenes.scorer import score
from janusflow.scenes.world import CATEGORIES, prompt
from janusflow.utils.devices import use_threads
from samplers import command_line

AT_ONCE = 48


def asked(count: int, first: int = 0) -> list[ImageJob]:
    """Returns jobs of `count` test prompts, each category in turn, from number `first` of it on."""
    places = [(CATEGORIES[i % len(CATEGORIES)], first + i // len(CATEGORIES)) for i in range(count)]
    return [
        ImageJob("model", "test", index, 0, prompt("test", name, index)) for name, index in places
    ]


def candidates(pipe, quality: str, jobs: list[ImageJob], count: int, names: Sequence[str]):
    """Returns which candidates are right, each verifier's scores, both (jobs, count), and the
    evaluations of one candidate.
    """
    right = torch.zeros(len(jobs), count)
    scores = {name: torch.zeros(len(jobs), count) for name in names}
    for start in range(0, len(jobs), AT_ONCE):
        part = jobs[start : start + AT_ONCE]
        rows, texts = slice(start, start + len(part)), [job.prompt.text for job in part]
        for k in range(count):
            seeds = [replace(job, seed=k).noise for job in part]
            out = pipe(texts, quality=quality, seed=seeds)
            shown = zip(map(np.asarray, out.images), part, strict=True)
            right[rows, k] = torch.tensor([float(score(i, job.prompt).strict) for i, job in shown])
            for name, kept in scores.items():
                kept[rows, k] = torch.tensor(find(name)(pipe, out.images, texts))
    return right, scores, out.calls


def table(right: Tensor, scores: dict[str, Tensor], calls: int) -> list[dict]:
    """Returns a row for each n = 1, 2, 4, ...: the score of the images that each verifier keeps
    with its 95 % interval (Wilson), chance, and the ceiling.
    """
    rows, n = [], 1
    while n <= right.shape[1]:
        row = {"n": n, "evaluations": n * calls, "chance": round(float(right[:, :n].mean()), 3)}
        for name, found in scores.items():
            best = found[:, :n].argmax(1, keepdim=True)
            kept = int(right[:, :n].gather(1, best).sum())
            shares = kept / len(right), *wilson(kept, len(right))
            row[name] = [round(share, 3) for share in shares]
        rows.append(row | {"ceiling": round(float(right[:, :n].amax(1).mean()), 3)})
        n *= 2
    return rows


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("model", nargs="?", default="janusflow/scenes", help="Names the model.")
    parser.add_argument("--quality", default="fast", help="Generates candidates in this quality.")
    parser.add_argument(
        "--verifiers",
        nargs="+",
        default=["own"],
        help="Chooses candidates by each of these verifiers.",
    )
    parser.add_argument(
        "--prompts", type=int, default=600, help="Takes this many prompts, each category in turn."
    )
    parser.add_argument(
        "--first", type=int, default=0, help="Starts at this prompt of each category."
    )
    parser.add_argument(
        "--candidates", type=int, default=8, help="Generates this many images for each prompt."
    )
    parser.add_argument("--threads", type=int, default=1, help="Runs torch on this many threads.")
    args = parser.parse_args()
    use_threads(args.threads)
    pipe = JanusFlowPipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    jobs = asked(args.prompts, args.first)
    found = candidates(pipe, args.quality, jobs, args.candidates, args.verifiers)
    for row in table(*found):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
