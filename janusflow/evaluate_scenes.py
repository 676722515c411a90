"""The task `scenes`: pictures of prompts, read back by the exact scorer.

The oracle draws what was asked and the autoencoder encodes and decodes that; they are saved and
scored in the same way, so that they are the ceilings of the model's scores.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from janusflow import pictures
from janusflow.evaluation import Item, Plan, Task
from janusflow.scenes import Prompt, categories_of, generator, prompt, realise
from janusflow.scorer import Score, score
from janusflow.shapes import render


@dataclass(frozen=True)
class Job:
    """One picture to be made: from this source, for this prompt."""

    source: str
    split: str
    index: int
    seed: int
    prompt: Prompt

    @property
    def file(self) -> Path:
        name = f"{self.index:05d}-{self.seed}.png"
        return Path(self.source, self.split, self.prompt.category, name)

    @property
    def noise(self) -> int:
        """Seed of the noise; prompts share texts, so the seed alone would repeat pictures."""
        key = (self.split, self.prompt.category, self.index, self.seed, "noise")
        return int(generator(*key).integers(2**63))


def jobs(plan: Plan, source: str) -> list[Job]:
    """All pictures of a source; the ceilings take one of each prompt."""
    seeds = plan.seeds if source == "model" else 1
    return [
        Job(source, split, index, seed, prompt(split, category, index))
        for split in plan.splits
        for category in categories_of(split)
        if category != "mixed"
        for index in range(plan.prompts)
        for seed in range(seeds)
    ]


def by_model(pipe, batch: Sequence[Job], settings: dict) -> tuple[list, int]:
    noise = [torch.Generator().manual_seed(job.noise) for job in batch]
    out = pipe([job.prompt.text for job in batch], generator=noise, **settings)
    return out.images, out.calls


def by_oracle(_pipe, batch: Sequence[Job], _settings: dict) -> tuple[list, int]:
    return [_drawn(job) for job in batch], 0


def by_autoencoder(pipe, batch: Sequence[Job], _settings: dict) -> tuple[list, int]:
    return list(pipe.decode(pipe.encode([_drawn(job) for job in batch]))), 0


SOURCES = {"model": by_model, "oracle": by_oracle, "vae": by_autoencoder}


def _drawn(job: Job) -> Image.Image:
    rng = generator(job.split, job.prompt.category, job.index, "oracle")
    return Image.fromarray(render(realise(job.prompt, rng).objects))


def make(pipe, plan: Plan, folder: Path, settings: dict) -> None:
    """Saves every picture that the folder lacks, with its story in the PNG's text."""
    from tqdm import tqdm

    for source, maker in SOURCES.items():
        todo = jobs(plan, source)
        bar = tqdm(total=len(todo), desc=source, disable=not sys.stderr.isatty())
        for start in range(0, len(todo), plan.batch):
            part = todo[start : start + plan.batch]
            missing = [job for job in part if not _whole(folder / job.file)]
            if missing:
                images, calls = maker(pipe, missing, settings)
                _save(plan, folder, missing, images, calls)
            bar.update(len(part))
        bar.close()


def _whole(path: Path) -> bool:
    """Whether there is a picture; one that is damaged is as good as missing."""
    try:
        pictures.read(path)
    except ValueError:
        return False
    return True


def _save(plan: Plan, folder: Path, batch: Sequence[Job], images: Sequence, calls: int) -> None:
    how = {name: value for name, value in plan.identity().items() if name != "side"}
    for job, image in zip(batch, images, strict=True):
        path = folder / job.file
        path.parent.mkdir(parents=True, exist_ok=True)
        where = dict(split=job.split, category=job.prompt.category, index=job.index, seed=job.seed)
        story = dict(prompt=job.prompt.text, source=job.source, noise_seed=job.noise, calls=calls)
        pictures.save(image, story | where | how, path)


def judge(plan: Plan, folder: Path) -> tuple[dict[str, list[Item]], dict]:
    """Scores of every picture of the plan; ValueError names the first that is not there."""
    calls, sources = set(), {}
    for source in SOURCES:
        todo = jobs(plan, source)
        _all_there(todo, folder)
        read = [(job, *_read(plan, folder, job)) for job in todo]
        sources[source] = [_item(job, score(picture, job.prompt)) for job, picture, _ in read]
        if source == "model":
            calls = sorted({int(spent) for *_, spent in read})
    return sources, {"network_calls": calls[0] if len(calls) == 1 else [calls[0], calls[-1]]}


def _all_there(todo: Sequence[Job], folder: Path) -> None:
    missing = [job.file for job in todo if not (folder / job.file).is_file()]
    if missing:
        raise ValueError(
            f"{str(folder)!r} lacks {len(missing)} of {len(todo)} pictures, the first "
            f"{missing[0]}; evaluate into it again without --rescore"
        )


def _read(plan: Plan, folder: Path, job: Job) -> tuple[np.ndarray, str]:
    """Pixels of a picture and its network calls, after a look at its size and its prompt."""
    path = folder / job.file
    image = pictures.read(path)
    if image.size != (plan.side, plan.side):
        raise ValueError(
            f"{path} is {image.width} x {image.height} pixels, expected {plan.side} x {plan.side}; "
            "delete it and evaluate again"
        )
    text = image.info
    if text.get("prompt") != job.prompt.text or not text.get("calls", "").isdigit():
        raise ValueError(
            f"{path} was made for {text.get('prompt')!r}, expected {job.prompt.text!r}; "
            "delete it and evaluate again"
        )
    return np.asarray(image.convert("RGB")), text["calls"]


def _item(job: Job, result: Score) -> Item:
    found = [f"{f.color or 'unknown'} {f.shape or 'thing'}" for f in result.found]
    scores = {"strict": result.strict, "lenient": result.lenient}
    said = ", ".join(sorted(found)) or "nothing"
    text = job.prompt.text
    return Item(job.split, job.prompt.category, job.index, job.seed, text, scores, text, said)


TASK = Task(make, judge, lambda _items: {})
