"""Training samples from a collection's folder; the samples of a step are a pure function of the
step.

A concept is drawn by its weight, then one of its images, then one of its captions.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from janusflow.data.drawing import Texts, share
from janusflow.data.samples import Sample
from janusflow.models import latents as coding
from janusflow.utils import images

TONE = "skin tone"  # a variant's caption holds it, its concept's plain image's never
FLAG = "flag: "
QUESTIONS = ("What is this?", "What does it show?", "Name it.")
YES_NO = ("Is this {}?", "Does it show {}?")
VARIANT = 0.4  # of the draws of a concept that has skin tones show one
FLAGS = 0.2  # weight of a flag; of anything else 1
PERSONS = 0.5  # weight of a concept with skin tones


@dataclass(frozen=True)
class ImageEntry:
    """The place of an image in the folder's tensors, with its name and keywords in a language."""

    place: int
    image: str
    concept: str
    name: str
    keywords: tuple[str, ...] = ()
    language: str = "en"
    toned: bool = False  # one of several skin tones
    flag: bool = False


def read_items(folder: Path, split: str, languages: Sequence[str] = ("en",)) -> list[ImageEntry]:
    """Returns the images of a split with names and keywords, each image once per language.

    Raises ValueError for a language in which the split has no captions.
    """
    lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    for code in languages:
        if not any(row["language"] == code for row in rows):
            raise ValueError(f"{str(folder)!r} has no captions in {code!r}; give another language")
    said: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["language"] in languages:
            said.setdefault((row["image"], row["language"]), []).append(row["text"])
    toned = {row["image"] for row in rows if TONE in row["text"]}
    flags = {row["image"] for row in rows if row["text"].startswith(FLAG)}
    concepts = {row["image"]: row["concept"] for row in rows}
    places = {image: i for i, image in enumerate(dict.fromkeys(image for image, _ in said))}
    return [
        ImageEntry(
            place=places[image],
            image=image,
            concept=concepts[image],
            name=texts[0],
            keywords=tuple(texts[1:]),
            language=language,
            toned=image in toned,
            flag=image in flags,
        )
        for (image, language), texts in said.items()
    ]


def read_pixels(folder: Path, items: Sequence[ImageEntry]) -> Tensor:
    """Reads the images of the items, each once, as bytes (N, 3, S, S)."""
    names = dict.fromkeys(item.image for item in items)
    shown = [np.asarray(images.read(folder / name)) for name in names]
    return torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2).contiguous()


def as_input(pixels: Tensor) -> Tensor:
    """Converts bytes from 0 to 255 to floats in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def vocabulary(items: Sequence[ImageEntry], least: int = 2) -> list[str]:
    """Returns the words of at least so many concepts' names and keywords, and of the questions."""
    used: dict[str, set[str]] = {}
    for item in items:
        for word in words_of(" ".join((item.name, *item.keywords))):
            used.setdefault(word, set()).add(item.concept)
    asked = words_of(" ".join((*QUESTIONS, *YES_NO, "yes no a an of user assistant")))
    return sorted({word for word, of in used.items() if len(of) >= least} | set(asked))


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+|\d", text.lower())


class CollectionBatches(Texts):
    """Draws batches from one split of a folder. Latents are computed once, at the start."""

    def __init__(
        self,
        folder: Path,
        tokenizer: Tokenizer,
        vae,
        seed: int = 0,
        tokens: int = 16,  # that stand for an image in a question
        split: str = "train",
        languages: Sequence[str] = ("en",),  # of captions; answers are in the first
    ):
        self.items = read_items(folder, split, languages)
        self.tokenizer, self.seed, self.tokens = tokenizer, seed, tokens
        self.pixels = read_pixels(folder, self.items)
        with torch.no_grad():
            parts = [coding.encode(vae, as_input(part)) for part in self.pixels.split(64)]
        self.latents = torch.cat(parts)
        self.concepts, self.shares = _grouped(self.items)
        self.answers = {i.image: i.name for i in self.items if i.language == languages[0]}

    def draw(
        self,
        step: int,
        rank: int,
        world: int,
        counts: dict[str, int],
        start: dict[str, int] | None = None,
    ) -> list[Sample]:
        """Returns one process's equal share of the samples of a step, generation samples first."""
        found = []
        for kind, make in (("generation", self.image), ("understanding", self.question)):
            count = counts.get(kind, 0)
            first = step * count if start is None else start.get(kind, 0)
            found += [make(first + row) for row in share(count, rank, world)]
        return found

    def image(self, index: int) -> Sample:
        """Returns generation sample `index`: a caption with its image's latents and pixels."""
        rng = self._rng(index, 0)
        item = self._item(rng)
        return Sample(
            kind="generation",
            input_ids=self.prompt_ids(worded(item, rng)),
            latents=self.latents[item.place],
            pixel_values=as_input(self.pixels[item.place])[None],
            name=item.image,
        )

    def question(self, index: int) -> Sample:
        """Returns understanding sample `index`: an image, a question about it and the answer."""
        rng = self._rng(index, 1)
        item = self._item(rng)
        return Sample(
            kind="understanding",
            **self.conversation([self._asked(item, rng)], self.tokens),
            pixel_values=as_input(self.pixels[item.place])[None],
            name=item.image,
        )

    def _asked(self, item: ImageEntry, rng: np.random.Generator) -> tuple[str, str]:
        """Returns a question and its answer; yes and no are equally frequent."""
        if rng.random() < 0.7:
            return _pick(rng, QUESTIONS), self._answer(item)
        answer, named = "yes", item
        if rng.random() < 0.5:
            while named.concept == item.concept:
                named = self._item(rng)
            answer = "no"
        return _pick(rng, YES_NO).format(self._answer(named)), answer

    def _answer(self, item: ImageEntry) -> str:
        """Returns the image's name in the language of answers, or in its own without one."""
        return self.answers.get(item.image, item.name)

    def _item(self, rng: np.random.Generator) -> ImageEntry:
        """Draws a concept by weight, then its plain image or sometimes one of its skin tones, then
        a language.
        """
        concept = self.concepts[int(np.searchsorted(self.shares, rng.random(), side="right"))]
        toned = [item for item in concept if item.toned]
        plain = [item for item in concept if not item.toned]
        if not plain or (toned and rng.random() < VARIANT):
            return _pick(rng, toned)
        told = [item for item in plain if item.image == plain[0].image]  # in each language
        return _pick(rng, told) if len(told) > 1 else told[0]

    def _rng(self, index: int, kind: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, kind, index))


def worded(item: ImageEntry, rng: np.random.Generator) -> str:
    """Returns a user's prompt: the name with an article, the name with keywords, or keywords."""
    name, words = item.name, list(item.keywords)
    if name.startswith(FLAG) and rng.random() < 0.5:
        name = f"flag of {name.removeprefix(FLAG)}"
    rng.shuffle(words)
    way = rng.random()
    if words and way < 0.2:
        return ", ".join([name, *words[: 1 + int(2 * rng.random())]])
    if len(words) > 1 and way < 0.3 and not item.toned:
        return ", ".join(words[:3])
    if way > 0.75 and item.language == "en":
        return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
    return name


def _grouped(items: Sequence[ImageEntry]) -> tuple[list[list[ImageEntry]], np.ndarray]:
    """Returns the items by concept, and the cumulative shares of the concepts."""
    found: dict[str, list[ImageEntry]] = {}
    for item in items:
        found.setdefault(item.concept, []).append(item)
    concepts = list(found.values())
    weights = np.cumsum([_weight(one) for one in concepts])
    return concepts, weights / weights[-1]


def _weight(concept: Sequence[ImageEntry]) -> float:
    if concept[0].flag:
        return FLAGS
    return PERSONS if any(item.toned for item in concept) else 1.0


def _pick(rng: np.random.Generator, options: Sequence):
    return options[int(rng.integers(len(options)))]
