"""Measures how often a model edits scenes exactly as it is told, by the exact scorer.

python -m studies.editing MODEL --count 100
"""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import torch
from PIL import Image

from janusflow import JanusFlowPipeline
from janusflow.scenes.edits import KINDS, Edit, edit, judge
from janusflow.scenes.shapes import render
from samplers import command_line

AT_ONCE = 25


def scores(pipe, count: int, steps: int = 12, guidance: float = 1.5) -> dict[str, float]:
    """Returns the share of right edits of the test split, by kind and "all"."""
    edits = [edit("test", i, list(KINDS)[i % len(KINDS)]) for i in range(count)]
    right, asked = Counter(), Counter(one.kind for one in edits)
    for first in range(0, count, AT_ONCE):
        part = edits[first : first + AT_ONCE]
        for one, picture in zip(part, _made(pipe, part, first, steps, guidance), strict=True):
            right[one.kind] += judge(picture, one)
    each = {name: right[name] / asked[name] for name in asked}
    return each | {"all": sum(right.values()) / count}


def _made(pipe, edits: list[Edit], seed: int, steps: int, guidance: float) -> list[np.ndarray]:
    sources = [Image.fromarray(render(one.before)) for one in edits]
    texts = [one.text for one in edits]
    how = dict(num_inference_steps=steps, guidance_scale=guidance, sampler="abm", seed=seed)
    return [np.asarray(image) for image in pipe(texts, image=sources, **how).images]


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("model", help="Names a model that edits.")
    parser.add_argument(
        "--count", type=int, default=100, help="Makes this many edits, of all kinds."
    )
    parser.add_argument("--steps", type=int, default=12, help="Takes this many sampling steps.")
    parser.add_argument("--guidance", type=float, default=1.5, help="Sets the guidance weight.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipe = JanusFlowPipeline.from_pretrained(options.model)
    pipe.set_progress_bar_config(disable=True)
    found = scores(pipe, options.count, options.steps, options.guidance)
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))


if __name__ == "__main__":
    main()
