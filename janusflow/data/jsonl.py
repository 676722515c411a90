"""JSON Lines files: each line is one row, and each row has its own kind."""

from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from janusflow.data.records import Record, parse_row, to_record
from janusflow.data.rows import described, edit_keys, image_keys, kept, why_not
from janusflow.data.sample_files import Named, Scan, fetch
from janusflow.data.samples import BrokenSample

MAX_LINE = 16 * 2**20  # bytes of a line of JSON


@dataclass(frozen=True)
class Lines:
    """The lines of one kind; image paths are relative to the file's folder.

    `starts` are the byte offsets of the lines and `numbers` their line numbers, so opening reads
    the file once and keeps no text in memory.
    """

    path: Path
    kind: str
    starts: Sequence[int]
    numbers: Sequence[int]  # from 1
    ignored: Collection[str] = ()

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Record:
        name = f"{self.path} line {self.numbers[index]}"
        with open(self.path, "rb") as file:
            file.seek(self.starts[index])
            line = file.readline(MAX_LINE + 1)
        if len(line) > MAX_LINE:
            raise BrokenSample(name, f"it is longer than {MAX_LINE} bytes")
        row = parse_row(line, name)
        home = self.path.parent
        return to_record(row, self.kind, name, lambda given: fetch(home, given), self.ignored)


def open_lines(path: Path, ignored: Collection[str] = (), named: Named | None = None) -> Scan:
    """Opens a file's lines, by kind.

    Image paths in the lines are added to `named`. Lines that are not JSON objects count to the
    first kind found and raise BrokenSample when read; objects that are not samples are skipped with
    a reason. Raises ValueError for a row with an unknown key that seems to name a file, and for a
    file without any sample.
    """
    places: dict[str, tuple[array, array]] = {}
    unknown: list[tuple[int, int]] = []
    found, broken = Scan(), ""
    for number, start, line in _lines(path):
        try:
            row = parse_row(line, str(path)) if len(line) <= MAX_LINE else None
        except BrokenSample as error:
            row, broken = None, broken or f"; {error} (line {number})"
        if row is None:
            unknown.append((start, number))
            continue
        kind = described(row, f"{path} line {number}", ignored)
        if kind is None:
            found.skip(f"{path} line {number}", why_not(row))
            continue
        starts, numbers = places.setdefault(kind, (array("q"), array("q")))
        starts.append(start)
        numbers.append(number)
        if named is not None:
            named.add(path.parent, kind, image_names(kept(row, ignored)))
    if not places:
        has = broken or "".join(f"; {name}: {why}" for name, why in list(found.skipped.items())[:1])
        raise ValueError(
            f"no line of {path} is a JSON object with a text, an image and a text, or a question "
            f"and an answer{has}"
        )
    first = next(iter(places))
    if unknown:
        both = sorted([*zip(*places[first], strict=True), *unknown])
        places[first] = array("q", (s for s, _ in both)), array("q", (n for _, n in both))
    found.sources = [(kind, Lines(path, kind, *own, ignored)) for kind, own in places.items()]
    return found


def image_names(row: dict) -> list:
    """Returns what a row gives as its images, of which the texts are names of files."""
    keys = {*image_keys(row), *(edit_keys(row) or ())[:2]}
    given = (row[key] for key in keys)
    return [one for value in given for one in (value if isinstance(value, list) else [value])]


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yields number (from 1), offset and content of the non-empty lines.

    Of a very long line only the beginning is returned, which is longer than MAX_LINE.
    """
    place, number, fresh = 0, 1, True
    with open(path, "rb") as file:
        while line := file.readline(MAX_LINE + 1):
            if fresh and line.strip():
                yield number, place, line
            fresh = line.endswith(b"\n")
            number += fresh
            place += len(line)
