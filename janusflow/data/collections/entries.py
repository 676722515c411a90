"""The entries of a collection, and its split into train and test by concept."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from janusflow.data.collections.packages import Package

HELD_OUT = 10  # one concept in so many is never trained on


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One image with its captions.

    `captions` maps a language to its texts: the first is the name, the rest are alternatives; "en"
    is always present. `concept` is never divided between splits: all skin tones of a gesture are
    one concept.
    """

    name: str  # unique in the collection, of letters, digits, "-" and "_"
    concept: str
    content: bytes  # of a PNG or SVG file
    suffix: str  # ".png" or ".svg"
    captions: dict[str, list[str]] = field(default_factory=dict)
    origin: str = ""  # the member of the package
    split: str | None = None  # instead of the one that the concept decides


@dataclass(frozen=True, kw_only=True)
class Collection:
    """A collection: `read` returns the package files' entries, in the order of `packages`."""

    packages: tuple[Package, ...]
    licence: str
    read: Callable[[list[Path], tuple[str, ...]], Iterator[Entry]]


COLLECTIONS: dict[str, Collection] = {}


def split_of(concept: str) -> str:
    """Returns "test" for about a tenth of all concepts, chosen by a hash, always the same."""
    number = int.from_bytes(hashlib.sha256(concept.encode()).digest()[:8], "big")
    return "train" if number % HELD_OUT else "test"
