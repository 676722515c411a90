"""Compares images by tokens and by a flow: score, time and network evaluations, in one table.

    python -m studies.janus_pro_scenes.versus --prompts 20

Both models generate images of the same prompts, which the exact scorer reads. The flow takes its
usual number of steps, then as many steps as fit into the time of the tokens. Times are medians over
batches after one image that is not timed. They depend on the other work of the machine, so compare
them within one run only.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from janusflow.evaluation.intervals import Interval, overall
from janusflow.pipelines import image_io
from janusflow.scenes.scorer import score
from janusflow.scenes.world import CATEGORIES, Prompt, prompt
from samplers import command_line

STEPS, GUIDANCE = 30, 2.0  # of the flow, as on its card
Batch = Sequence[tuple[int, Prompt]]  # prompts with the seeds of their images


@dataclass(frozen=True)
class Row:
    """One way of drawing: its parameters, calls and seconds per image, and its strict score."""

    name: str
    parameters: int
    calls: int
    seconds: float
    score: float
    interval: Interval


def parameters(pipe) -> int:
    """Returns the parameters of the repeated network, without vision encoder and autoencoder."""
    apart = ("vqmodel.", "vision_model.", "vision_und_", "aligner.")
    named = pipe.model.named_parameters()
    return sum(p.numel() for name, p in named if not name.removeprefix("model.").startswith(apart))


def draw(pipe, batch: Batch, **settings) -> tuple[list, int, float]:
    """Returns images, network evaluations and seconds per image."""
    seeds = [torch.Generator().manual_seed(seed) for seed, _ in batch]
    start = time.perf_counter()
    out = pipe([one.text for _, one in batch], generator=seeds, **settings)
    return out.images, out.calls, (time.perf_counter() - start) / len(batch)


def measure(name: str, pipe, batches: Sequence[Batch], **settings) -> Row:
    """Draws and scores every batch; the score is the mean of the categories'."""
    draw(pipe, batches[0][:1], **settings)
    right: dict[str, tuple[list, list]] = {}
    times = []
    for batch in batches:
        images, calls, seconds = draw(pipe, batch, **settings)
        times.append(seconds)
        for (_, one), image in zip(batch, images, strict=True):
            values, texts = right.setdefault(one.category, ([], []))
            values.append(score(np.asarray(image.convert("RGB")), one).strict)
            texts.append(one.text)
    mean = statistics.mean(statistics.mean(values) for values, _ in right.values())
    interval = overall(list(right.values()))
    return Row(name, parameters(pipe), calls, statistics.median(times), mean, interval)


def fitting(pipe, seconds: float, batch: Batch) -> int:
    """Returns how many steps of the flow take this time, at least 1, by timing 2 and 10 of them."""
    few, many = (draw(pipe, batch, num_inference_steps=n, guidance_scale=GUIDANCE) for n in (2, 10))
    each = (many[2] - few[2]) / 8
    return max(1, int((seconds - few[2]) / each) + 2) if each > 0 else STEPS


def compare(flow, tokens, count: int, size: int) -> list[Row]:
    """Returns rows of the tokens, of the flow, and of the flow in the tokens' time."""
    asked = [prompt("test", category, i) for i in range(count) for category in CATEGORIES]
    asked = list(enumerate(asked))
    batches = [asked[i : i + size] for i in range(0, len(asked), size)]
    rows = [measure("tokens", tokens, batches)]
    settings = dict(num_inference_steps=STEPS, guidance_scale=GUIDANCE)
    rows.append(measure(f"flow, {STEPS} steps", flow, batches, **settings))
    settings["num_inference_steps"] = fitting(flow, rows[0].seconds, batches[0])
    steps = settings["num_inference_steps"]
    rows.append(measure(f"flow, equal time: {steps} steps", flow, batches, **settings))
    return rows


def table(rows: Sequence[Row]) -> str:
    head = f"{'':<28}{'parameters':>11}{'NFE':>7}{'s/image':>11}  strict score"
    lines = [
        f"{r.name:<28}{r.parameters:>11,}{r.calls:>7}{r.seconds:>11.3f}  "
        f"{r.score:.3f} [{r.interval.low:.3f}, {r.interval.high:.3f}]"
        for r in rows
    ]
    return "\n".join([head, *lines])


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--flow", default="janusflow/scenes", help="Names the JanusFlow.")
    parser.add_argument("--tokens", default="janusflow/scenes-pro", help="Names the Janus-Pro.")
    parser.add_argument(
        "--prompts", type=int, default=20, help="Draws this many prompts per category."
    )
    parser.add_argument("--batch", type=int, default=12, help="Draws this many images at once.")
    asked = parser.parse_args()
    if asked.prompts < 1 or asked.batch < 1:
        parser.error("--prompts and --batch must be at least 1")
    flow, tokens = (image_io.load(m, None, "auto", "float32") for m in (asked.flow, asked.tokens))
    print(f"{asked.prompts} prompts of each of {len(CATEGORIES)} categories, {asked.batch} at once")
    print(table(compare(flow, tokens, asked.prompts, asked.batch)))


if __name__ == "__main__":
    main()
