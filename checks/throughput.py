"""Measures training throughput with and without packing and caching, step by step in one run.

    python -m checks.throughput --rounds 8 --json throughput.json

The data is generated: scenes as PNG with captions, conversations of one to four questions, texts of
8 to 120 words. Four trainings of the same model take turns, one step each: with and without
packing, with and without the cache. Without both, every sample is padded to the longest, and images
are decoded, encoded by the autoencoder and seen by the teacher in every step.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from janusflow.scenes.questions import TEMPLATES, ask
from janusflow.scenes.world import generator, render, scene
from janusflow.training import job, precompute
from janusflow.training.trainer import Trainer
from janusflow.utils.flops import Counting, peak
from samplers import command_line

MODEL = "janusflow/scenes"
WAYS = {  # packed, cached
    "plain": (False, False),
    "packed": (True, False),
    "cached": (False, True),
    "both": (True, True),
}


def write_data(folder: Path, images: int, seed: int = 0) -> None:
    """Writes images with captions, half as many conversations and texts, of mixed lengths."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    names, conversations, paragraphs = list(TEMPLATES), [], []
    for index in range(images):
        drawn = scene("train", seed * images + index)
        Image.fromarray(render(drawn.objects)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(drawn.caption, encoding="utf-8")
        if index % 2:
            own = generator("train", index, "throughput")
            asked = [ask(drawn, str(own.choice(names)), own) for _ in range(own.integers(1, 5))]
            turns = [("user", q.text, "assistant", q.answer) for q in asked if q]
            messages = [
                {"role": role, "content": text}
                for q, text_, a, answer in turns
                for role, text in ((q, text_), (a, answer))
            ]
            if messages:
                messages[0]["content"] = f"<image>\n{messages[0]['content']}"
                conversations.append({"image": f"{index}.png", "messages": messages})
            words = " ".join(scene("train", i).caption for i in rng.integers(10**6, size=20))
            paragraphs.append(" ".join(words.split()[: rng.integers(8, 121)]))
    lines = "\n".join(map(json.dumps, conversations))
    (folder / "talks.jsonl").write_text(lines, encoding="utf-8")
    (folder / "words.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")


@dataclass(frozen=True)
class Row:
    """The seconds of the steps of one variant, with the contents of a step."""

    name: str
    seconds: list[float]
    tokens: float  # of a step
    flops: float
    share: float  # of the machine's peak, at the median
    loss: float  # of the first step, the same for all

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        low, _, high = statistics.quantiles(self.seconds, n=4)
        return low, high


def run(folder: Path, batch: int, rounds: int, model: str = MODEL, images: int = 256) -> list[Row]:
    """Times `rounds` steps of each variant in turn, after one unmeasured step each."""
    data, cache = folder / "data", folder / "cache"
    write_data(data, images)
    precompute.precompute(data, precompute.load(model, device="auto"), cache)
    engines = {name: _engine(model, data, cache, batch, *way) for name, way in WAYS.items()}
    counted, losses, spent = {}, {}, {name: [] for name in WAYS}
    for name, trainer in engines.items():  # warms up too
        with Counting() as operations:
            losses[name] = trainer.step()["loss"]
        counted[name] = operations.total
    tokens = dict.fromkeys(WAYS, 0)
    for number in range(rounds):
        names = list(WAYS)[number % 4 :] + list(WAYS)[: number % 4]  # none is always first
        for name in names:
            started = time.perf_counter()
            tokens[name] += engines[name].step()["tokens"]
            spent[name].append(time.perf_counter() - started)
    device = engines["plain"].accelerator.device
    bf16 = engines["plain"].accelerator.mixed_precision == "bf16"
    most = peak(device, torch.bfloat16 if bf16 else torch.float32, torch.get_num_threads())
    return [
        Row(
            name,
            spent[name],
            tokens[name] / rounds,
            counted[name],
            counted[name] / statistics.median(spent[name]) / most,
            losses[name],
        )
        for name in WAYS
    ]


def _engine(model: str, data: Path, cache: Path, batch: int, packed: bool, cached: bool) -> Trainer:
    changes = {
        "training.batch": batch,
        "training.mixture": {"generation": 50, "understanding": 25, "text": 25},
        "training.opening": None,
        "training.warmup": 1,
        "training.lr": 1e-6,
        "run.packed": packed,
        **({"data.cache": str(cache)} if cached else {"data.crop": "center"}),
    }
    return job.of_stage(2, model, data, data.parent / "run", changes).trainer()


def table(rows: list[Row]) -> str:
    """Formats the median and quartiles of a step, tokens per second and ratio to the plain loop."""
    plain = rows[0].median
    lines = ["way      s a step (quartiles)     tokens/s   GFLOP   of peak   speed"]
    for row in rows:
        low, high = row.quartiles
        lines.append(
            f"{row.name:8} {row.median:.3f} ({low:.3f}-{high:.3f})     "
            f"{row.tokens / row.median:8.0f} {row.flops / 1e9:7.1f} {row.share:8.0%} "
            f"{plain / row.median:7.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--model", default=MODEL, help="Names the model to train.")
    parser.add_argument("--batch", type=int, default=32, help="Trains on this many samples a step.")
    parser.add_argument(
        "--rounds", type=int, default=8, help="Times this many steps each way, at least 2."
    )
    parser.add_argument("--json", type=Path, help="Writes the seconds to this file.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = run(Path(folder), asked.batch, max(2, asked.rounds), asked.model)
    print(table(rows))
    if asked.json:
        asked.json.write_text(json.dumps([vars(row) for row in rows], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
