"""Reads a folder as data, and says which of its files are skipped and why."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from janusflow.data.json_rows import open_json
from janusflow.data.jsonl import open_lines
from janusflow.data.parquet import open_tables
from janusflow.data.read_options import Data
from janusflow.data.records import Record, to_record
from janusflow.data.sample_files import (
    CAPTIONS,
    IMAGE_SUFFIXES,
    READERS,
    Named,
    Scan,
    fetch,
    placed,
    read_caption,
)
from janusflow.data.shards import open_shards, refuse_compressed

READ = {".json", ".jsonl", ".parquet", ".tar"}
# Texts about a folder, not of it.
ABOUT = ("readme", "license", "licence", "copying", "notice", "changelog", "authors")
RUN = ("settings.yaml", "log.jsonl")  # a training's folder
OF_RUN = {*RUN, "changes.jsonl", "evaluations.jsonl", "samples", "best", "base"}


@dataclass(frozen=True)
class Captioned:
    """The images of a folder, each with its caption in a text file of the same name."""

    images: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Record:
        image = self.images[index]
        caption = next(iter(captions_of(image)), image.with_suffix(".txt"))
        text = read_caption(caption, str(image))
        row = {"text": text, "image": image.name}
        return to_record(row, "generation", str(image), lambda name: fetch(image.parent, name))


@dataclass(frozen=True)
class Paragraphs:
    """The paragraphs of a text file, separated by empty lines, as text samples."""

    path: Path
    paragraphs: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paragraphs)

    def __getitem__(self, index: int) -> Record:
        return Record(name=f"{self.path} paragraph {index + 1}", text=self.paragraphs[index])


def captions_of(image: Path) -> list[Path]:
    """Returns the text files with an image's caption, of which the first counts."""
    spelt = ((image.with_suffix(s), image.with_suffix(s.upper())) for s in CAPTIONS)
    found = (next((p for p in both if p.is_file()), None) for both in spelt)
    return [path for path in found if path]


def open_text(path: Path) -> Scan:
    """Opens a text file as a source of its paragraphs."""
    parts = (p.strip() for p in read_caption(path, str(path)).split("\n\n"))
    paragraphs = tuple(part for part in parts if part)
    if not paragraphs:
        return Scan(skipped={str(path): "it is empty"})
    return Scan([("text", Paragraphs(path, paragraphs))])


def open_folder(
    path: Path, options: Data | None = None, seed: int = 0, exclude: Sequence[Path] = ()
) -> Scan:
    """Opens everything in a folder and its subfolders: *.jsonl, *.json, *.parquet, *.tar, captioned
    images, texts.

    Folders in `exclude` are skipped, such as the run's own. Raises ValueError if there is nothing
    to learn from, and for a compressed shard.
    """
    options = options or Data()
    found = Scan()
    files = files_of(path, exclude, found)
    for file in files:
        refuse_compressed(file)
    named = Named()
    for file in (f for f in files if f.suffix == ".jsonl"):
        found.add(open_lines(file, options.ignore, named))
    _add_json(found, [f for f in files if f.suffix == ".json"], files, options, named)
    tables = [f for f in files if f.suffix == ".parquet"]
    found.add(open_tables(tables, options, seed, named))
    found.add(open_shards([f for f in files if f.suffix == ".tar"], options.ignore))
    for file in (f for f in files if f.suffix in READERS):
        found.add(READERS[file.suffix](file))
    _add_images(found, [f for f in files if f.suffix.lower() in IMAGE_SUFFIXES], named)
    _add_texts(found, [f for f in files if f.suffix.lower() in CAPTIONS], files)
    _name_the_rest(found, files)
    if not found.sources:
        left = list(found.skipped.items())
        has = "".join(f"; {name}: {why}" for name, why in [*left[:1], *left[1:][-1:]])
        raise ValueError(
            f"{str(path)!r} holds no .jsonl, .json, .parquet or .tar with samples, and no image "
            f"with a .txt beside it{has}"
        )
    return found


def _add_images(found: Scan, images: Sequence[Path], named: Named) -> None:
    """Adds images with caption files. Where a row gives an image its text, that text alone counts,
    and of two caption files the first.
    """
    captioned = []
    for image in images:
        first, *more = captions_of(image) or [None]
        rowed = placed(image) in named.captioned
        if first and rowed:
            found.skip(str(first), "a caption of an image whose text is in a row of another file")
        elif first:
            captioned.append(image)
        elif placed(image) not in named.every:
            found.skipped[str(image)] = "an image without a caption (.txt) beside it"
        for other in more:
            found.skip(str(other), f"a second caption; {first.name} counts")
    found.sources += [("generation", Captioned(tuple(captioned)))] if captioned else []


def files_of(path: Path, exclude: Sequence[Path] = (), found: Scan | None = None) -> list[Path]:
    """Returns the sorted regular files below a folder, without hidden files and output folders.

    Links to files and folders count as what they lead to.
    """
    out = [folder.resolve() for folder in exclude]
    found = found or Scan()
    kept = []
    own = path.resolve() in out or _is_run(path)
    for file in sorted(_below(path, found)):
        below = file.relative_to(path)
        if any(part.startswith(".") for part in below.parts):
            continue
        if own and (below.parts[0] in OF_RUN or below.parts[0].startswith("step-")):
            continue
        if _is_run(file) and file.is_dir():
            found.skipped[str(file)] = "the folder of a run"
        above = [path / parent for parent in below.parents if parent != Path(".")]
        if any(_is_run(folder) or folder.resolve() in out for folder in above):
            continue
        if file.is_file():  # a pipe may never end
            kept.append(file)
        elif file.is_symlink() and not file.exists():
            found.skip(str(file), "a link that leads to nothing")
    return kept


def _below(path: Path, found: Scan) -> Iterator[Path]:
    """Yields all files and folders below one; a folder that links lead to is entered once."""
    entered, waiting = [path.resolve()], [path]

    def closed(error: OSError) -> None:
        found.skipped[str(error.filename)] = f"a folder that cannot be opened ({error.strerror})"

    while waiting:
        for home, folders, files in os.walk(waiting.pop(), onerror=closed):
            for child in (Path(home, name) for name in (*folders, *files)):
                yield child
                if child.is_symlink() and child.is_dir():
                    real = child.resolve()
                    if not any(real in (e, *e.parents) or e in real.parents for e in entered):
                        entered.append(real)
                        waiting.append(child)


def _is_run(folder: Path) -> bool:
    return all((folder / name).is_file() for name in RUN)


def _add_json(
    found: Scan, lists: list[Path], files: Sequence[Path], options: Data, named: Named
) -> None:
    """Adds JSON files that are lists of rows; one beside an image of its name is no list."""
    images = {f.with_suffix("") for f in files if f.suffix.lower() in IMAGE_SUFFIXES}
    for file in lists:
        if file.with_suffix("") in images:
            found.skip(str(file), "JSON beside an image; write the caption into a .txt file")
        else:
            found.add(open_json(file, options.ignore, named))


def _add_texts(found: Scan, texts: Iterable[Path], files: Sequence[Path]) -> None:
    """Adds text files that are neither captions nor descriptions of the folder."""
    images = {f.with_suffix("") for f in files if f.suffix.lower() in IMAGE_SUFFIXES}
    others = {f.with_suffix(""): f for f in files if f.suffix.lower() not in CAPTIONS}
    homes = {f.parent for f in files if f.suffix.lower() in IMAGE_SUFFIXES}
    for text in texts:
        stem = text.with_suffix("")
        if stem in images:
            continue
        if text.stem.lower().startswith(ABOUT):
            found.skipped[str(text)] = "a text about the folder"
        elif stem in others:
            why = f"the caption of {others[stem].name}, whose format is not read"
            found.skipped[str(text)] = why
        elif text.suffix.lower() != ".txt":
            found.skipped[str(text)] = "a caption without its image"
        else:
            own = open_text(text)
            alone = own.sources and len(own.sources[0][1]) == 1
            if alone and text.parent in homes:
                why = "a caption without its image; a text stands in a folder without images"
                own = Scan(skipped={str(text): why})
            found.add(own)


def _name_the_rest(found: Scan, files: Sequence[Path]) -> None:
    known = {*IMAGE_SUFFIXES, *CAPTIONS, *READ, *READERS}
    rest = Counter(f.suffix or f.name for f in files if f.suffix.lower() not in known)
    for suffix, count in rest.items():
        found.skipped[f"{count} x {suffix}"] = "this format is not read"
