"""Captioned scenes and conversations on the device, drawn and renewed by processes."""

from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from janusflow.models.janusflow.tokenizer import IMAGE_START
from janusflow.scenes.batches import IMAGE_TOKENS, MIXED, Batches
from janusflow.scenes.questions import question
from janusflow.scenes.shapes import SIDE, render_batch
from janusflow.scenes.world import Scene, generator, scene
from janusflow.training import init_checkpoint
from janusflow.training.recipes import Recipe

CHUNK = 512  # scenes with captions, and half as many conversations, drawn by a process at once
PROMPT = 27  # tokens of a prompt; with the time token and the 36 of the image these are 64
ANSWERS = 96  # tokens of a conversation; what is longer is cut

_batches: Batches | None = None  # of a worker process


def _begin(base: Path, recipe: Recipe) -> None:
    global _batches
    torch.set_num_threads(1)
    _batches = init_checkpoint.batches(base, recipe)


def _draw(number: int) -> dict[str, np.ndarray]:
    """Draws chunk `number`: pixels as uint8, tokens padded with 0, labels with -100."""
    own, rng = _batches, generator("train", number, "pool", _batches.seed)
    shown = [own.training_scene(int(i)) for i in rng.integers(2**40, size=CHUNK)]
    asked = [_asked(rng) for _ in range(CHUNK // 2)]
    talks = [own.asked(one, rng) for one in asked]
    prompts = [own.prompt_ids(one.caption) for one in shown]
    return {
        "images": render_batch([one.objects for one in shown]),
        "prompts": rows(prompts, PROMPT, 0),
        "lengths": np.array([len(ids) for ids in prompts], dtype=np.int16),
        "seen": render_batch([one.objects for one in asked]),
        "ids": rows([talk["input_ids"] for talk in talks], ANSWERS, 0),
        "labels": rows([talk["labels"] for talk in talks], ANSWERS, -100),
    }


def _asked(rng: np.random.Generator) -> Scene:
    """Returns a scene to ask about; half of them have shapes whose places can be asked for."""
    index, related = int(rng.integers(2**31)), rng.random() < 0.5
    if related:
        return question("train", index, "relation").scene
    return scene("train", index, "mixed" if rng.random() < MIXED else None)


def rows(rows: list, width: int, fill: int) -> np.ndarray:
    """Returns (rows, width) int16, padded on the right or cut."""
    out = np.full((len(rows), width), fill, dtype=np.int16)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row[:width]
    return out


@dataclass
class Pool:
    """Samples on the device. `fill` draws the first ones, `renew` replaces the oldest by new ones.

    `chunks` is the capacity. The tensors keep their places, so CUDA graphs may read them.
    """

    base: Path
    recipe: Recipe
    device: torch.device
    chunks: int
    processes: int
    tensors: dict[str, Tensor] = field(default_factory=dict)
    drawn: int = 0  # chunks so far
    _asked: list[Future] = field(default_factory=list)

    def __post_init__(self):
        self._workers = ProcessPoolExecutor(
            self.processes, get_context("spawn"), _begin, (self.base, self.recipe)
        )
        sides = {"images": 1, "prompts": 1, "lengths": 1, "seen": 2, "ids": 2, "labels": 2}
        shapes = dict(images=(SIDE, SIDE, 3), seen=(SIDE, SIDE, 3), prompts=(PROMPT,), lengths=())
        shapes |= dict(ids=(ANSWERS,), labels=(ANSWERS,))
        for name, part in sides.items():
            rows = self.chunks * CHUNK // part
            kind = torch.uint8 if name in ("images", "seen") else torch.int16
            self.tensors[name] = torch.zeros(rows, *shapes[name], dtype=kind, device=self.device)

    def ask(self, count: int) -> None:
        """Asks the processes for further chunks."""
        first = self.drawn + len(self._asked)
        self._asked += [self._workers.submit(_draw, n) for n in range(first, first + count)]

    def fill(self) -> None:
        """Waits until every place holds a sample."""
        self.ask(max(0, self.chunks - self.drawn - len(self._asked)))
        while self.drawn < self.chunks:
            self._store(self._asked.pop(0).result())

    def renew(self, ahead: int) -> None:
        """Stores a chunk that was drawn since, without waiting, and asks for up to `ahead`."""
        if self._asked and self._asked[0].done():
            self._store(self._asked.pop(0).result())
        self.ask(max(0, ahead - len(self._asked)))

    def _store(self, chunk: dict[str, np.ndarray]) -> None:
        for name, values in chunk.items():
            place = self.drawn % self.chunks * len(values)
            self.tensors[name][place : place + len(values)].copy_(torch.from_numpy(values))
        self.drawn += 1

    @property
    def images(self) -> int:
        """The captioned scenes so far."""
        return self.drawn * CHUNK

    def close(self) -> None:
        self._workers.shutdown(wait=False, cancel_futures=True)


def image_place(base: Path) -> tuple[int, int]:
    """Returns the first place and the number of the image's tokens in every conversation."""
    own = init_checkpoint.batches(base)
    ids = own.asked(scene("train", 0), generator("train", 0, "place"))["input_ids"].tolist()
    first = ids.index(own.tokenizer.token_to_id(IMAGE_START))
    return first, 1 + IMAGE_TOKENS
