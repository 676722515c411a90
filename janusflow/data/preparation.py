"""Turns records into samples: the pixels and token ids that the processor would make of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from janusflow.data.feature_cache import AGAIN, Cache, CacheError, key_of
from janusflow.data.image_sizes import MIN_SIDE, check_sides
from janusflow.data.permutation import mix
from janusflow.data.records import PLACEHOLDER, Record, Records
from janusflow.data.samples import BrokenSample, Sample, attempt
from janusflow.models.janusflow.processing import JanusFlowProcessor
from janusflow.models.special_tokens import check_written
from janusflow.utils.images import crop, decode

MAX_TOKENS = 4096  # of one sample; the default capacity of a pack


@dataclass(frozen=True)
class Prepared:
    """A source of one kind whose records are read and prepared on demand."""

    records: Records
    kind: str
    processor: JanusFlowProcessor
    max_tokens: int = MAX_TOKENS
    centered: bool = False  # the crop, whatever the key
    cached: Cached | None = None  # of images to be made
    sides: tuple[int, int] | None = None  # height and width of images to be made; None: square
    min_side: int = MIN_SIDE  # pixels of each side of an image that is taken

    @property
    def sequential(self) -> bool:
        return getattr(self.records, "sequential", False)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        return self.read(index, 0)

    def many(self, indices: Sequence[int], keys: Sequence[int]) -> list[Sample | BrokenSample]:
        return [attempt(self.read, *pair) for pair in zip(indices, keys, strict=True)]

    def read(self, index: int, key: int) -> Sample:
        """Returns sample number `index`; the key selects the random crop of a target image."""
        try:
            record = self.records[index]
        except OSError as error:  # a disk's fault, of this one
            raise BrokenSample(f"{self.kind} {index}", str(error)) from error
        record = one_caption(record, key)
        key = 0 if self.centered else key
        try:
            check_sides(record, self.min_side)
            if self.cached is not None and self.kind == "generation":
                sample = self.cached(self.processor, record)
            elif self.sides is not None and self.kind == "generation":
                sample = generation(self.processor, record, key, self.sides)
            else:
                sample = PREPARE[self.kind](self.processor, record, key)
        except (ValueError, TypeError) as error:
            raise BrokenSample(record.name, str(error)) from error
        if len(sample.input_ids) <= self.max_tokens:
            return sample
        if self.kind == "text":  # the beginning of a long text is a text
            ids = sample.input_ids[: self.max_tokens]
            return replace(sample, input_ids=ids, labels=sample.labels[: self.max_tokens])
        raise BrokenSample(
            record.name, f"it has {len(sample.input_ids)} tokens; at most {self.max_tokens} fit"
        )


def one_caption(record: Record, key: int) -> Record:
    """Returns the record with one of its captions, which the key selects; key 0 takes the first."""
    if not record.captions or not key:
        return record
    return replace(record, text=record.captions[mix(key + 1) % len(record.captions)])


def generation(
    processor: JanusFlowProcessor,
    record: Record,
    key: int = 0,
    sides: tuple[int, int] | None = None,
) -> Sample:
    """Prepares a generation sample: the image is resized to cover the target size and cropped.

    The target is a square or `sides` (height, width). The key selects the crop; key 0 crops the
    centre.
    """
    share = mix(key) / 2**64 if key else 0.5
    size = processor.image_processor.image_size
    image = crop(decode(record.images[0], "its image"), sides or (size, size), share)
    pixels = torch.from_numpy(processor.image_processor.normalised(image))[None]
    own = prompt(processor, record, share)
    return Sample(kind="generation", pixel_values=pixels, name=record.name, **own)


def prompt(processor: JanusFlowProcessor, record: Record, share: float = 0.5) -> dict[str, Tensor]:
    """Returns a prompt's ids, and for an edit the source images, cropped as the target is."""
    size = processor.image_processor.image_size
    sources = (decode(content, "its source image") for content in record.shown)
    images = [crop(source, (size, size), share) for source in sources]
    found = processor.prompt(record.text, [images] if images else None)
    own = {"input_ids": found["input_ids"][0]}
    if not images:
        return own
    return own | {"shown": found["pixel_values"], "image_token_mask": found["image_token_mask"][0]}


@dataclass(frozen=True)
class Cached:
    """Prepares generation samples with latents and features from a cache; `pixels` also decodes the
    image.

    Raises CacheError for a readable image that is not in the cache.
    """

    cache: Cache
    names: tuple[str, ...] = ("latents",)
    pixels: bool = False

    def __call__(self, processor: JanusFlowProcessor, record: Record) -> Sample:
        key = key_of(record.images[0])
        if key not in self.cache:
            generation(processor, record)  # what cannot be read is no fault of the cache
            raise CacheError(
                f"the cache in {self.cache.folder} is stale: {record.name} is not in it; {AGAIN}"
            )
        found = self.cache.get(key, self.names)
        if self.pixels:
            return replace(generation(processor, record), **found)
        own = prompt(processor, record)
        return Sample(kind="generation", name=record.name, **own, **found)


def understanding(processor: JanusFlowProcessor, record: Record, key: int = 0) -> Sample:  # noqa: ARG001
    """Prepares an understanding sample: images are resized by their long side and padded.

    The loss covers every answer and its end-of-sentence token, and all text of a document.
    """
    if record.document:
        return document(processor, record)
    images = [decode(content, "its image") for content in record.images]
    ids, labels, mask = conversation(processor, list(record.messages), len(images))
    return _read(processor, record.name, ids, labels, mask, images)


def document(processor: JanusFlowProcessor, record: Record) -> Sample:
    """Prepares a document: BOS, texts and images, end of sentence. The loss covers all texts."""
    images = [decode(content, "an image of the document") for content in record.images]
    content = record.text.replace(PLACEHOLDER, processor.image_tag)
    ids, seen = processor._expand(content, len(images))
    ids, mask = torch.tensor([*ids, processor.tokenizer.eos_token_id]), torch.tensor([*seen, False])
    labels = ids.masked_fill(mask | (ids == processor.image_end_id), -100)
    labels[0] = -100
    return _read(processor, record.name, ids, labels, mask, images)


def _read(processor: JanusFlowProcessor, name: str, ids, labels, mask, images: list) -> Sample:
    return Sample(
        kind="understanding",
        input_ids=ids,
        labels=labels,
        image_token_mask=mask if images else None,
        pixel_values=processor.image_processor(images) if images else None,
        name=name,
    )


def text(processor: JanusFlowProcessor, record: Record, key: int = 0) -> Sample:  # noqa: ARG001
    """Prepares a text: BOS, the text, end of sentence. The loss covers everything after BOS."""
    check_written(record.text, processor._image_tags, processor._image_tags)
    ids = torch.tensor([*processor.ids(record.text), processor.tokenizer.eos_token_id])
    labels = ids.clone()
    labels[0] = -100
    return Sample(kind="text", input_ids=ids, labels=labels, name=record.name)


PREPARE: dict[str, Callable[..., Sample]] = {
    "generation": generation,
    "understanding": understanding,
    "text": text,
}


def conversation(
    processor: JanusFlowProcessor, messages: list[dict], images: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns ids, labels and image mask (L,) of a conversation of questions and answers.

    The part before an answer is identical to what the processor writes to ask for that answer.
    Raises ValueError for a conversation without an answer, or with an answer that has no question.
    """
    turns = processor._turns(messages, images)
    answers = [i for i, turn in enumerate(turns) if turn.kind == "assistant"]
    if not answers:
        raise ValueError("the conversation has no answer; add an assistant's message")
    ids, labels, mask, known = [], [], [], ""
    for i in answers:
        if i == 0 or turns[i - 1].kind != "user":
            raise ValueError("an answer has no question before it; let roles alternate")
        asked = processor._render(turns[:i])
        own, seen = _tokens(processor, asked[len(known) :], first=not known)
        answer = f" {turns[i].text.strip()}{processor.tokenizer.eos_token}"
        said, none = _tokens(processor, answer, first=False)
        ids += own + said
        labels += [-100] * len(own) + said
        mask += seen + none
        known = asked + answer
    if any(mask) != bool(images) or sum(mask) != images * (processor.num_image_tokens + 1):
        raise ValueError(
            f"{images} images came for {sum(mask) // (processor.num_image_tokens + 1)} "
            f"placeholders {processor.image_tag!r}; give as many of both"
        )
    return torch.tensor(ids), torch.tensor(labels), torch.tensor(mask)


def _tokens(processor: JanusFlowProcessor, text: str, *, first: bool) -> tuple[list, list]:
    """Returns ids and image mask of a conversation's part; only the first starts with BOS."""
    ids, mask = processor._expand(text, text.count(processor.image_tag))
    return (ids, mask) if first else (ids[1:], mask[1:])
