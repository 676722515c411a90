"""Training samples, and the interface of the sources that provide them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from janusflow.utils.keywords import choice

KINDS = ("generation", "understanding", "text")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The tensors of one example, on the CPU and not batched.

    - generation: `input_ids` are BOS and the prompt, without image tokens. `latents` are scaled as
      the model expects them. `pixel_values` is the normalised clean image, or None if the teacher's
      `features` and the latents come from a cache. For an edit the prompt contains the images
      `shown`, at the places that `image_token_mask` marks.
    - understanding: the whole sequence with placeholders, which `image_token_mask` marks.
    - understanding and text: `labels` are the ids to learn at their own places, and -100 elsewhere.
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
        choice("a sample's kind is", self.kind, KINDS)


class BrokenSample(ValueError):
    """A sample cannot be read; it carries its name and the reason. Mixtures replace it."""

    def __init__(self, name: str, why: str):
        super().__init__(f"{name}: {why}")
        self.name, self.why = name, why

    def __reduce__(self):
        return BrokenSample, (self.name, self.why)


class Source(Protocol):
    """Samples by number. `source[i]` raises BrokenSample for one that cannot be read.

    Optional: `many(indices, keys)` returns several at once, where the key selects the random crop
    (`source[i]` has key 0). `sequential = True` marks a source that must be read in rising order;
    numbers beyond its length continue with further rounds, shuffled as it likes.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def take(
    source: Source, indices: Sequence[int], keys: Sequence[int] | None = None
) -> list[Sample | BrokenSample]:
    """Returns the samples of these numbers in order, or the exception of a broken one."""
    if hasattr(source, "many"):
        return source.many(indices, keys or [0] * len(indices))
    return [attempt(source.__getitem__, index) for index in indices]


def attempt(read: Callable[..., Sample], *args) -> Sample | BrokenSample:
    """Returns the result of `read`, or the BrokenSample that it raises."""
    try:
        return read(*args)
    except BrokenSample as broken:
        return broken
