"""Best-of-n sampling with the model's own answers, between chance and the exact scorer's ceiling.

    python -m studies.best_of_n janusflow/scenes --quality draft --prompts 600 --candidates 8

Every prompt of the split "test" gets the same candidates for all n. The kept image of n candidates is
the one that the verifier scores highest; chance keeps the first; the ceiling counts a prompt as right
if any of its first n candidates is.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch

from janusflow import JanusFlowPipeline
from janusflow.evaluation.intervals import wilson
from janusflow.pipelines.verifiers import VERIFIERS
from janusflow.scenes.scorer import score
from janusflow.scenes.world import CATEGORIES, Prompt, generator, prompt
from janusflow.utils.devices import use_threads

AT_ONCE = 48


def asked(count: int) -> list[Prompt]:
    """Returns `count` test prompts, of each category in turn."""
    return [
        prompt("test", CATEGORIES[i % len(CATEGORIES)], i // len(CATEGORIES)) for i in range(count)
    ]


def noise(request: Prompt, index: int, candidate: int) -> torch.Generator:
    key = ("test", request.category, index, candidate, "noise")
    return torch.Generator().manual_seed(int(generator(*key).integers(2**63)))


def candidates(pipe, quality: str, prompts: list[Prompt], count: int, verifier: str):
    """Returns which candidates are right, their scores (prompts, count), and their evaluations."""
    right, scores = (torch.zeros(len(prompts), count) for _ in range(2))
    for start in range(0, len(prompts), AT_ONCE):
        part = prompts[start : start + AT_ONCE]
        rows = slice(start, start + len(part))
        for k in range(count):
            keys = [noise(one, start + i, k) for i, one in enumerate(part)]
            out = pipe([one.text for one in part], quality=quality, generator=keys)
            shown = zip(map(np.asarray, out.images), part, strict=True)
            right[rows, k] = torch.tensor([float(score(*one).strict) for one in shown])
            texts = [one.text for one in part]
            scores[rows, k] = torch.tensor(VERIFIERS[verifier](pipe, out.images, texts))
    return right, scores, out.calls


def table(right: torch.Tensor, scores: torch.Tensor, calls: int) -> list[dict]:
    """Returns a row for each n = 1, 2, 4, ...: the kept images' score, chance and ceiling."""
    rows, n = [], 1
    while n <= right.shape[1]:
        kept = right[:, :n].gather(1, scores[:, :n].argmax(1, keepdim=True)).squeeze(1)
        low, high = wilson(int(kept.sum()), len(kept))
        row = {"n": n, "evaluations": n * calls}
        row["kept by its own answers"] = [round(x, 3) for x in (float(kept.mean()), low, high)]
        row["chance"] = round(float(right[:, :n].mean()), 3)
        row["ceiling"] = round(float(right[:, :n].amax(1).mean()), 3)
        rows.append(row)
        n *= 2
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", default="janusflow/scenes")
    parser.add_argument("--quality", default="draft")
    parser.add_argument("--verifier", default="own", choices=list(VERIFIERS))
    parser.add_argument("--prompts", type=int, default=600)
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    use_threads(args.threads)
    pipe = JanusFlowPipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    prompts = asked(args.prompts)
    found = candidates(pipe, args.quality, prompts, args.candidates, args.verifier)
    for row in table(*found):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
