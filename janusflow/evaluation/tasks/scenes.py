"""The task `scenes`: images of prompts, scored by the exact scorer.

For comparison the oracle draws the requested scene, and the autoencoder encodes and decodes that
drawing. Both are saved and scored in the same way; they are upper bounds of the model's score.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from janusflow.evaluation.plan import Plan
from janusflow.evaluation.resume import batches, fill
from janusflow.evaluation.task import IMAGE_FIELDS, Item, Sources, Task, register
from janusflow.pipelines import image_io
from janusflow.scenes.scorer import Score, score
from janusflow.scenes.shapes import render
from janusflow.scenes.world import Prompt, categories_of, generator, prompt, realise
from janusflow.utils import images
from janusflow.utils.locked_dir import make_folder


@dataclass(frozen=True)
class ImageJob:
    """One image to generate: its source (model, oracle or autoencoder) and its prompt."""

    source: str
    split: str
    index: int
    seed: int
    prompt: Prompt

    @property
    def category(self) -> str:
        return self.prompt.category

    @property
    def text(self) -> str:
        return self.prompt.text

    @property
    def story(self) -> dict:
        """What the image's file says of it, besides how it was generated."""
        where = dict(split=self.split, category=self.category, index=self.index, seed=self.seed)
        return dict(prompt=self.text, source=self.source, noise_seed=self.noise) | where

    @property
    def file(self) -> Path:
        name = f"{self.index:05d}-{self.seed}.png"
        return Path(self.source, self.split, self.category, name)

    def item(self, scores: dict[str, bool | float], said: str) -> Item:
        """Returns the report's item about this image."""
        place = (self.split, self.category, self.index, self.seed)
        return Item(*place, self.text, scores, self.text, said)

    @property
    def noise(self) -> int:
        """The seed of the noise, with the prompt's key, because prompts may share a text."""
        key = (self.split, self.category, self.index, self.seed, "noise")
        return int(generator(*key).integers(2**63))


def jobs(plan: Plan, source: str) -> list[ImageJob]:
    """Returns the jobs of a source; upper bounds (oracle, autoencoder) have one per prompt."""
    seeds = plan.seeds if source == "model" else 1
    return [
        ImageJob(source, split, index, seed, prompt(split, category, index))
        for split in plan.splits
        for category in categories_of(split)
        if category != "mixed"
        for index in range(plan.prompts)
        for seed in range(seeds)
    ]


Made = list[tuple[Image.Image, dict]]  # images, and what each cost


def by_model(load: Callable, batch: Sequence, settings: dict) -> Made:
    noise = [torch.Generator().manual_seed(job.noise) for job in batch]
    out = load()([job.text for job in batch], generator=noise, **settings)
    return [(image, image_io.cost(out, i)) for i, image in enumerate(out.images)]


def by_oracle(_load: Callable, batch: Sequence[ImageJob], **_settings) -> Made:
    return [(_drawn(job), {"calls": 0}) for job in batch]


def by_autoencoder(load: Callable, batch: Sequence[ImageJob], **_settings) -> Made:
    pipe = load()
    images = pipe.decode(pipe.encode([_drawn(job) for job in batch]))
    return [(image, {"calls": 0}) for image in images]


SOURCES = {"model": by_model, "oracle": by_oracle, "vae": by_autoencoder}


def _drawn(job: ImageJob) -> Image.Image:
    rng = generator(job.split, job.category, job.index, "oracle")
    return Image.fromarray(render(realise(job.prompt, rng).objects))


def make(load: Callable, plan: Plan, folder: Path, settings: dict, sources=tuple(SOURCES)) -> None:
    """Generates and saves every missing image."""
    for name in sources:
        parts = batches(jobs(plan, name), plan.batch, lambda job: (job.split, job.category))
        draw = partial(SOURCES[name], load, settings=settings)
        paint(plan, folder, list(parts), draw, name)


def paint(plan: Plan, folder: Path, parts: Sequence[Sequence], draw: Callable, name: str) -> None:
    """Draws and saves the missing images of batches, with metadata in the PNG's text.

    An image to draw has a `text`, the seed of its `noise`, a `file` and a `story`; every process
    computes its own batches.
    """
    how = plan.only(("task", "fingerprint", *IMAGE_FIELDS))

    def keep(made: list) -> None:
        for job, (image, cost) in made:
            make_folder((folder / job.file).parent)
            image_io.save(image, job.story | cost | how, folder / job.file)

    fill(parts, lambda job: not whole(folder / job.file), draw, keep, name)


def whole(path: Path) -> bool:
    """Returns whether there is an undamaged image."""
    try:
        images.read(path)
    except ValueError:
        return False
    return True


def judge(plan: Plan, folder: Path) -> tuple[Sources, dict]:
    """Returns the scores of every image of the plan. Raises ValueError for a missing one."""
    found = {name: list(judged(plan, folder, name)) for name in SOURCES}
    items = {name: [item for item, _ in pairs] for name, pairs in found.items()}
    made = {"network_calls": spent(calls for _, calls in found["model"])}
    return items, made if plan.reuse is None else made | {"skipped": _skipped(plan, folder)}


def _skipped(plan: Plan, folder: Path) -> float:
    """Returns the mean number of evaluations per image that the first-block cache shortened."""
    told = [images.read(folder / job.file).info.get("skipped", "") for job in jobs(plan, "model")]
    return sum(int(text) for text in told if text.isdigit()) / len(told)


def judged(plan: Plan, folder: Path, source: str) -> Iterator[tuple[Item, int]]:
    """Returns each image's scores and network evaluations."""
    return ((item(job, result), calls) for job, result, calls in read_back(plan, folder, source))


def read_back(
    plan: Plan, folder: Path, source: str = "model"
) -> Iterator[tuple[ImageJob, Score, int]]:
    """Yields each image with the exact scorer's result and its network evaluations."""
    todo = jobs(plan, source)
    all_there([job.file for job in todo], folder)
    for job in todo:
        pixels, calls = read(folder / job.file, plan.side, job.prompt.text)
        yield job, score(pixels, job.prompt), calls


def spent(calls: Iterable[int]) -> int | list[int]:
    """Returns the network evaluations per image, or their least and most."""
    counts = sorted(set(calls))
    return counts[0] if len(counts) == 1 else [counts[0], counts[-1]]


def all_there(files: Sequence[Path], folder: Path) -> None:
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise ValueError(
            f"{str(folder)!r} lacks {len(missing)} of {len(files)} images, the first "
            f"{missing[0]}; evaluate into it again without --rescore"
        )


def read(path: Path, side: int, text: str) -> tuple[np.ndarray, int]:
    """Returns an image's pixels and network evaluations, after checking its size and prompt."""
    image = images.read(path)
    if image.size != (side, side):
        raise ValueError(
            f"{path} is {image.width} x {image.height} pixels, expected {side} x {side}; "
            "delete it and evaluate again"
        )
    story = image.info
    if story.get("prompt") != text or not story.get("calls", "").isdigit():
        raise ValueError(
            f"{path} was generated for {story.get('prompt')!r}, expected {text!r}; delete it and "
            "evaluate again"
        )
    return np.asarray(image.convert("RGB")), int(story["calls"])


def item(job: ImageJob, result: Score) -> Item:
    found = [f"{f.color or 'unknown'} {f.shape or 'thing'}" for f in result.found]
    scores = {"strict": result.strict, "lenient": result.lenient}
    return job.item(scores, ", ".join(sorted(found)) or "nothing")


def path_of(item: dict) -> Path:
    """Returns the path of the image of a report's item."""
    name = f"{item['index']:05d}-{item['seed']}.png"
    return Path("model", item["split"], item["group"], name)


NOTE = (
    "strict: the image shows exactly the requested objects. lenient: it shows at least these. "
    "oracle, vae: the strict score of correct drawings, and of the same after the autoencoder."
)
FIELDS = ("splits", "prompts", "seeds", *IMAGE_FIELDS)
register("scenes", Task(make, judge, FIELDS, images=path_of, note=NOTE))
