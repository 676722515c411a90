"""One example as training reads it, and what gives examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

KINDS = ("generation", "understanding", "text")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Tensors of one example, on the CPU, before any batching.

    generation: `input_ids` are BOS and the prompt, without image tokens; `latents` are scaled as
    the model takes them; `pixel_values` hold the clean image once, normalised, or None where
    the teacher's `features` and the latents were cached. understanding: the whole sequence with
    placeholders, whose places `image_token_mask` marks. understanding and text: `labels` are the
    ids to be learnt at their own places, -100 elsewhere. An edit is a generation whose prompt shows
    images: `shown`, at the places that `image_token_mask` marks.
    """

    kind: str  # one of KINDS
    input_ids: Tensor  # (L,) long
    labels: Tensor | None = None  # (L,) long
    image_token_mask: Tensor | None = None  # (L,) bool
    pixel_values: Tensor | None = None  # (n, 3, S, S)
    shown: Tensor | None = None  # (n, 3, S, S)
    latents: Tensor | None = None  # (c, h, w)
    features: Tensor | None = None  # (tokens, D)
    extra: Mapping[str, Tensor] = field(default_factory=dict)  # an objective's own numbers
    request: object | None = None  # what an exact reward holds the image to
    name: str = ""  # where it came from, for reports

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"a sample's kind is {self.kind!r}; choose one of {', '.join(KINDS)}")


class BrokenSample(ValueError):
    """An example that cannot be read: its name, and why. Mixtures replace it and count it."""

    def __init__(self, name: str, why: str):
        super().__init__(f"{name}: {why}")
        self.name, self.why = name, why

    def __reduce__(self):
        return BrokenSample, (self.name, self.why)


class Source(Protocol):
    """Examples by number. `source[i]` raises BrokenSample for what cannot be read.

    A source may also have `many(indices, keys)`, the same for several at once, where what is
    random in a sample (its crop) depends on the key; `source[i]` has the key 0. And it may have
    `sequential = True`, where only rising numbers are cheap: those beyond its length are of
    its next rounds, shuffled as it likes. Mixtures use both.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def take(
    source: Source, indices: Sequence[int], keys: Sequence[int] | None = None
) -> list[Sample | BrokenSample]:
    """The samples of these numbers in order; what is broken stands as its exception."""
    if hasattr(source, "many"):
        return source.many(indices, keys or [0] * len(indices))
    return [attempt(source.__getitem__, index) for index in indices]


def attempt(read: Callable[..., Sample], *args) -> Sample | BrokenSample:
    """What `read` returns, or the BrokenSample that it raises."""
    try:
        return read(*args)
    except BrokenSample as broken:
        return broken
