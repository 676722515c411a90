"""Files of samples as records: pictures with captions, lines of JSON, plain texts, parquet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from janusflow.data.mixture import Blend, Mixture, Tally
from janusflow.data.options import Data
from janusflow.data.preparation import Cached, Prepared
from janusflow.data.records import Record, Records, kind_of, parse_row, to_record
from janusflow.data.samples import KINDS, BrokenSample
from janusflow.data.shards import COMPRESSED, open_shards
from janusflow.data.streams import Streamed, count_rows, embedded
from janusflow.models.janusflow.processing import JanusFlowProcessor
from janusflow.utils.limits import hold

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
PICTURED = {*SUFFIXES, ".jsonl", ".parquet", ".tar"}
MAX_LINE = 16 * 2**20  # bytes of a line of JSON


@dataclass(frozen=True)
class Captioned:
    """Pictures of a folder, each with its caption in a file of the same name with suffix .txt."""

    pictures: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Record:
        picture = self.pictures[index]
        row = {"text": _text(picture.with_suffix(".txt"), str(picture)), "image": picture.name}
        return to_record(row, "generation", str(picture), lambda name: fetch(picture.parent, name))


@dataclass(frozen=True)
class Lines:
    """A file with one JSON object a line; pictures are named relative to its folder.

    `starts` are the lines' places in the file, so that opening reads it once and keeps no text.
    """

    path: Path
    kind: str
    starts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Record:
        name = f"{self.path} line {index + 1}"
        with open(self.path, "rb") as file:
            file.seek(self.starts[index])
            line = file.readline(MAX_LINE + 1)
        if len(line) > MAX_LINE:
            raise BrokenSample(name, f"it is longer than {MAX_LINE} bytes")
        row = parse_row(line, name)
        return to_record(row, self.kind, name, lambda given: fetch(self.path.parent, given))


@dataclass(frozen=True)
class Texts:
    """Each paragraph of a text file (between empty lines) as a text."""

    path: Path
    paragraphs: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paragraphs)

    def __getitem__(self, index: int) -> Record:
        return Record(name=f"{self.path} paragraph {index + 1}", text=self.paragraphs[index])


@dataclass(frozen=True)
class Table:
    """Rows of parquet files, read by Hugging Face `datasets`; pictures as bytes or as `Image`."""

    path: Path
    rows: object
    kind: str

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Record:
        return to_record(self.rows[index], self.kind, f"{self.path} row {index + 1}", embedded)


def fetch(folder: Path, given) -> bytes:
    """The bytes of a picture inside the folder; ValueError for a name that leads out of it."""
    if not isinstance(given, str) or not given or "\0" in given:
        raise ValueError(f"a picture is {given!r:.60}; expected the name of a file")
    path = (folder / given).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"the picture {given!r:.60} leads out of its folder")
    if not path.is_file():
        raise ValueError(f"there is no picture {given!r:.60}")
    hold("picture_bytes", path.stat().st_size, f"{path.name} has {path.stat().st_size} bytes")
    return path.read_bytes()


def _text(path: Path, name: str) -> str:
    try:
        hold("prompts_bytes", path.stat().st_size, f"{path} has {path.stat().st_size} bytes")
        return path.read_text(encoding="utf-8-sig").strip()
    except FileNotFoundError:
        raise BrokenSample(name, f"it has no caption in {path.name}") from None
    except (OSError, ValueError) as error:
        raise BrokenSample(name, f"its caption cannot be read ({error})") from error


def _starts(path: Path) -> Iterator[int]:
    """Where the lines begin that are not empty."""
    place, fresh = 0, True  # a very long line comes in pieces, of which only the first counts
    with open(path, "rb") as file:
        while line := file.readline(MAX_LINE):
            if line.strip() and fresh:
                yield place
            fresh = line.endswith(b"\n")
            place += len(line)


def _lines(path: Path) -> list[tuple[str, Lines]]:
    """The file's lines by the kind that the first readable one speaks of."""
    starts = tuple(_starts(path))
    for start in starts[:100]:
        with open(path, "rb") as file:
            file.seek(start)
            try:
                kind = kind_of(parse_row(file.readline(MAX_LINE), str(path)))
            except BrokenSample:
                continue
        if kind:
            return [(kind, Lines(path, kind, starts))]
    raise ValueError(
        f"no line of {path} is a JSON object with a text, a picture and a text, or a question "
        "and an answer"
    )


def _table(path: Path) -> list[tuple[str, Table]]:
    import datasets

    count_rows([path])
    rows = datasets.Dataset.from_parquet(str(path), keep_in_memory=False)
    for column, feature in rows.features.items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
    return [(_columns(path), Table(path, rows, _columns(path)))]


def _columns(path: Path) -> str:
    """The kind that the names of a table's columns speak of."""
    from pyarrow.parquet import read_schema

    names = read_schema(path).names
    if (kind := kind_of(dict.fromkeys(names))) is None:
        raise ValueError(f"{path} has the columns {', '.join(names)}; none is a text")
    return kind


def _streams(paths: list[Path], options: Data, seed: int) -> list[tuple[str, Streamed]]:
    """All tables of a kind as one stream."""
    count_rows(paths)  # refuses what is no parquet
    by_kind: dict[str, list[Path]] = {}
    for path in paths:
        by_kind.setdefault(_columns(path), []).append(path)
    return [
        (kind, Streamed(tuple(own), kind, count_rows(own), seed, options.buffer))
        for kind, own in by_kind.items()
    ]


def _plain(path: Path) -> list[tuple[str, Texts]]:
    parts = tuple(p.strip() for p in _text(path, str(path)).split("\n\n") if p.strip())
    return [("text", Texts(path, parts))]


OPEN = {
    ".jsonl": _lines,
    ".parquet": _table,
    ".tar": lambda path: open_shards([path]),
    ".txt": _plain,
}


def find(path: Path, options: Data | None = None, seed: int = 0) -> list[tuple[str, Records]]:
    """(kind, records) of a file, or of what a folder holds: *.jsonl, *.parquet, *.tar, and pictures
    with captions beside them (in folders below it too). ValueError if there is nothing to learn
    from.
    """
    path, options = Path(path), options or Data()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    files = [f for f in files if f.is_file()]  # a pipe may never end
    if packed := next((f for f in files if f.name.endswith(COMPRESSED)), None):
        raise ValueError(f"{packed} is compressed, so nothing in it has a place; unpack it to .tar")
    if path.is_file() and path.suffix in OPEN:
        if path.suffix == ".parquet" and options.streaming:
            return _streams([path], options, seed)
        return OPEN[path.suffix](path)
    if not path.is_dir():
        raise ValueError(f"{str(path)!r} is no folder and no {', '.join(OPEN)} file; check --data")
    found = [one for f in files if f.suffix == ".jsonl" for one in _lines(f)]
    tables = [f for f in files if f.suffix == ".parquet"]
    if options.streaming and tables:
        found += _streams(tables, options, seed)
    else:
        found += [one for f in tables for one in _table(f)]
    found += open_shards([f for f in files if f.suffix == ".tar"])
    pictures = {f for f in files if f.suffix.lower() in SUFFIXES}
    captioned = tuple(f for f in sorted(pictures) if f.with_suffix(".txt").exists())
    found += [("generation", Captioned(captioned))] if captioned else []
    texts = [f for f in files if f.suffix == ".txt" and not _beside(f, pictures)]
    found += [one for f in texts for one in _plain(f)]
    if not found:
        raise ValueError(
            f"{str(path)!r} holds no .jsonl, .parquet or .tar, and no picture with a .txt beside it"
        )
    return found


def _beside(text: Path, pictures: set[Path]) -> bool:
    return any(text.with_suffix(s) in pictures for s in (*SUFFIXES, *map(str.upper, SUFFIXES)))


def open_data(
    paths: Path | Sequence[Path],
    processor: JanusFlowProcessor,
    encode=None,
    seed: int = 0,
    limit: int = 100,
    options: Data | None = None,
    cached: Cached | None = None,
) -> Mixture:
    """What `--data` names, as a mixture: sources of one kind are blended by their lengths, or by
    the weights that `options` give to the paths. ValueError where those do not fit.
    """
    options, paths = options or Data(), as_paths(paths)
    if options.weights and len(options.weights) != len(paths):
        raise ValueError(
            f"data.weights has {len(options.weights)} numbers for {len(paths)} --data; give as many"
        )
    by_kind: dict[str, list[tuple[Prepared, float]]] = {kind: [] for kind in KINDS}
    for path, weight in zip(paths, options.weights or [None] * len(paths), strict=True):
        found = find(path, options, seed)
        for kind, records in found:
            source = Prepared(records, kind, processor, centered=options.centered, cached=cached)
            whole = sum(len(other) for name, other in found if name == kind)
            share = len(records) * (1 if weight is None else weight / whole)
            by_kind[kind].append((source, float(share)))
    blends = {kind: Blend(*zip(*own, strict=True)) for kind, own in by_kind.items() if own}
    return Mixture(blends, seed=seed, encode=encode, tally=Tally(limit))


def as_paths(paths: Path | str | Sequence[Path]) -> list[Path]:
    return [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]


def signature(paths: Path | Sequence[Path]) -> str:
    """Changes with the names and sizes of the files that may hold pictures; folders may move."""
    found = hashlib.sha256()
    for path in as_paths(paths):
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.suffix.lower() in PICTURED and file.is_file():
                name = file.relative_to(path if path.is_dir() else path.parent).as_posix()
                found.update(json.dumps([name, file.stat().st_size]).encode())
    return found.hexdigest()
