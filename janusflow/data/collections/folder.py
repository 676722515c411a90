"""Writes a collection as a folder that `janusflow train --data` reads.

images/NAME.png      RGB, square, transparency over white
train.jsonl          {"image", "text", "name", "concept", "language"}, one line per caption
test.jsonl           the same for held-out concepts; other splits likewise
SOURCES.tsv          name, member of the package, licence, SHA-256 of the member
collection.json      the request and its counts; a second run with the same request does nothing
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from janusflow.data.collections import emoji, stamps  # noqa: F401 (they register themselves)
from janusflow.data.collections.entries import COLLECTIONS, Collection, Entry, split_of
from janusflow.utils import limits
from janusflow.utils.extras import needed
from janusflow.utils.keywords import choice
from janusflow.utils.text import explained

DONE = "collection.json"


def build(
    name: str,
    out: Path,
    *,
    size: int = 96,
    languages: Sequence[str] = (),
    files: Sequence[Path] = (),
    keywords: bool = False,
    only: str = "",
) -> dict:
    """Writes a collection to `out` and returns its counts; does nothing if `out` holds it already.

    `files` are local packages; missing ones are downloaded. `keywords` makes every alternative text
    a caption of its own. `only` keeps the concepts whose names begin with it. Raises ValueError for
    an unknown name, a damaged package, or if nothing is kept.
    """
    choice("no collection named", name, COLLECTIONS)
    limits.hold("side", size, f"--size is {size} pixels")
    if size < 8:
        raise ValueError(f"--size is {size} pixels; expected 8 or more")
    languages = tuple(code for code in dict.fromkeys(languages) if code != "en")
    asked = {"collection": name, "size": size, "languages": list(languages), "keywords": keywords}
    asked["only"] = only
    if (done := _done(out, asked)) is not None:
        return done
    out.mkdir(parents=True, exist_ok=True)
    collection = COLLECTIONS[name]
    packages = find(collection, out, files)
    entries = (e for e in collection.read(packages, languages) if e.concept.startswith(only))
    counts = write(entries, out, size, collection.licence, keywords)
    told = asked | counts | {"packages": {path.name: digest(path) for path in packages}}
    (out / DONE).write_text(json.dumps(told, indent=1), encoding="utf-8")
    return told


def _done(out: Path, asked: dict) -> dict | None:
    """Returns the counts if `out` holds the same request's result.

    Raises ValueError for another request.
    """
    if not (out / DONE).exists():
        return None
    told = json.loads((out / DONE).read_text(encoding="utf-8"))
    told.setdefault("only", "")  # folders written before there was a choice
    if other := [key for key, value in asked.items() if told.get(key) != value]:
        key = other[0]
        raise ValueError(
            f"{str(out)!r} holds {told.get('collection')} with {key} {told.get(key)}, not "
            f"{asked[key]}; choose another folder or delete this one"
        )
    return told


def find(collection: Collection, out: Path, files: Sequence[Path]) -> list[Path]:
    """Returns the collection's packages: those given, kept from an earlier try, or downloaded."""
    found = []
    folder = out / "packages"
    folder.mkdir(exist_ok=True)
    for package in collection.packages:
        kept = [p for p in (*files, *sorted(folder.iterdir())) if p.name.startswith(package.name)]
        found.append(kept[0] if kept else package.fetch(folder))
    return found


def write(
    entries: Iterable[Entry], out: Path, size: int, licence: str, keywords: bool
) -> dict[str, dict]:
    """Writes images, captions by split, and sources; returns the counts."""
    (out / "images").mkdir(exist_ok=True)
    rows: dict[str, list[str]] = {}
    kinds, captioned, sources = Counter(), Counter(), ["name\tmember\tlicence\tsha256"]
    for entry in entries:
        flat(entry, size).save(out / "images" / f"{entry.name}.png")
        split = entry.split or split_of(entry.concept)
        kinds[entry.suffix[1:]] += 1
        sha = hashlib.sha256(entry.content).hexdigest()
        sources.append(f"{entry.name}\t{entry.origin}\t{licence}\t{sha}")
        for language, texts in entry.captions.items():
            captioned[language] += 1
            for text in texts if keywords else texts[:1]:
                rows.setdefault(split, []).append(_row(entry, language, text))
    if not kinds:
        raise ValueError(
            "the package holds no captioned image of what was asked for; check the package, and "
            "that --only is the beginning of a concept's name"
        )
    for split, lines in rows.items():
        (out / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (out / "SOURCES.tsv").write_text("\n".join(sources) + "\n", encoding="utf-8")
    splits = {split: len(lines) for split, lines in rows.items()}
    return {"images": dict(kinds), "captioned": dict(captioned), "captions": splits}


def _row(entry: Entry, language: str, text: str) -> str:
    row = {"image": f"images/{entry.name}.png", "text": text, "name": entry.name}
    return json.dumps(row | {"concept": entry.concept, "language": language}, ensure_ascii=False)


def flat(entry: Entry, size: int) -> Image.Image:
    """Returns the image on a white square of `size` pixels, scaled to its longer side."""
    content = rasterise(entry, size) if entry.suffix == ".svg" else entry.content
    with explained(f"{entry.origin} is not an image", "download the package again"):
        image = Image.open(io.BytesIO(content)).convert("RGBA")
    scale = size / max(image.size)
    image = image.resize([max(1, round(side * scale)) for side in image.size], Image.LANCZOS)
    square = Image.new("RGBA", (size, size), "white")
    square.alpha_composite(image, ((size - image.width) // 2, (size - image.height) // 2))
    return square.convert("RGB")


def rasterise(entry: Entry, size: int) -> bytes:
    """Renders an SVG to PNG with resvg. Files that the SVG refers to are not read."""
    with needed("data", "an SVG stamp"):
        import resvg_py
    text = entry.content.decode("utf-8", "replace")
    with explained(
        f"{entry.origin} cannot be drawn", "leave this image out or download the package again"
    ):
        return bytes(resvg_py.svg_to_bytes(svg_string=text, width=4 * size, dpi=96))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
