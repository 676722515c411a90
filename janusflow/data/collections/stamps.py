"""Tux Paint's stamps: photographs and drawings with a sentence each, in 78 languages.

Debian's package tuxpaint-stamps-default has a text file next to each image; its first line is
English and the others are `language.utf8=sentence`. If a stamp exists as PNG and SVG, the PNG is
used. The licence is GPL-2, so users download the images themselves and this package ships none.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from janusflow.data.collections.entries import COLLECTIONS, Collection, Entry
from janusflow.data.collections.packages import Package, members

ROOT = "usr/share/tuxpaint/stamps/"
LINE = re.compile(r"([a-z]{2,3}(?:_[A-Z]{2})?(?:@\w+)?)\.utf8=(.*)")


def read(packages: list[Path], languages: tuple[str, ...]) -> Iterator[Entry]:
    """Returns every stamp that has a caption, sorted by path."""
    images: dict[str, tuple[str, bytes]] = {}
    texts: dict[str, str] = {}
    for name, content in members(packages[0]):
        stem, _, suffix = name.removeprefix(ROOT).rpartition(".")
        if not name.startswith(ROOT):
            continue
        if suffix == "txt":
            texts[stem] = content.decode("utf-8", "replace")
        elif suffix == "png" or (suffix == "svg" and stem not in images):
            images[stem] = (f".{suffix}", content)
    for stem in sorted(images.keys() & texts.keys()):
        suffix, content = images[stem]
        yield Entry(
            name=stem.replace("/", "--"),
            concept=concept(stem),
            content=content,
            suffix=suffix,
            captions=captions(texts[stem], languages),
            origin=f"{ROOT}{stem}{suffix}",
        )


def captions(text: str, languages: tuple[str, ...]) -> dict[str, list[str]]:
    """Returns the stamp's sentence in each requested language that it has and in English."""
    first, *rest = text.splitlines() or [""]
    said = {"en": first.strip()}
    said |= {m[1]: m[2].strip() for m in map(LINE.fullmatch, map(str.strip, rest)) if m}
    return {name: [said[name]] for name in ("en", *languages) if said.get(name)}


def concept(stem: str) -> str:
    """Returns the stamp's name without marks of variants: "cat2" and "cat_left" are both "cat"."""
    return re.sub(r"(?:[-_]?\d+|[-_](?:left|right|front|back|top|side))+$", "", stem)


COLLECTIONS["stamps"] = Collection(
    packages=(Package(registry="debian", name="tuxpaint-stamps-default"),),
    licence="GPL-2, (c) 2002-2022 Bill Kendrick and the authors of the stamps",
    read=read,
)
