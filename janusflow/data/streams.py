"""Parquet rows as a stream: read in order, shuffled in a buffer, never held in memory as a whole.

Hugging Face `datasets` reads and shuffles. The row at a place is a function of the files, the seed,
the round and the buffer size; starting at a place means reading all rows before it.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from janusflow.data.permutation import mix
from janusflow.data.records import Record, to_record
from janusflow.utils.text import printable

CURSORS = 2  # one that runs ahead, one for what stands in for broken rows


@dataclass
class Cursor:
    """An iterator over one round; `place` is the next row's place and `last` the row before it."""

    turn: int
    rows: Iterator[dict]
    place: int = 0
    last: dict | None = None

    def reaches(self, turn: int, place: int) -> bool:
        return self.turn == turn and self.place <= place + (self.last is not None)

    def at(self, place: int) -> dict:
        while self.place <= place:
            self.last = next(self.rows)
            self.place += 1
        return self.last


@dataclass
class Streamed:
    """Records in rising order: number n is place n mod `count` of round n div `count`.

    Raises ValueError if a file ends early or is damaged in the middle.
    """

    paths: tuple[Path, ...]
    kind: str
    count: int  # rows of all files, as they say
    seed: int = 0
    buffer: int = 1000
    sequential: bool = True
    ignored: Collection[str] = ()
    cursors: list[Cursor] = field(default_factory=list, repr=False)
    rows: object = field(default=None, repr=False)  # of `datasets`, once it was asked

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Record:
        turn, place = divmod(index, self.count)
        row = self._row(turn, place)
        name = f"{self.paths[0].parent} {_named(row)}"
        return to_record(row, self.kind, name, embedded, self.ignored)

    def _row(self, turn: int, place: int) -> dict:
        able = [cursor for cursor in self.cursors if cursor.reaches(turn, place)]
        if able:
            cursor = max(able, key=lambda cursor: cursor.place)
            self.cursors.remove(cursor)
        else:
            cursor = Cursor(turn, self._round(turn))
        self.cursors = [cursor, *self.cursors][:CURSORS]  # the latest first
        try:
            return cursor.at(place)
        except Exception as error:  # of the file's end, of arrow, of datasets
            self.cursors.remove(cursor)
            why = printable(error, 120) or "it ends early"
            names = ", ".join(path.name for path in self.paths[:3])
            raise ValueError(
                f"row {place + 1} of {names} cannot be read ({why}); write the file again"
            ) from error

    def _round(self, turn: int) -> Iterator[dict]:
        if self.rows is None:
            self.rows = self._open()
        seed = mix(self.seed, turn) % 2**32
        return iter(self.rows.shuffle(seed=seed, buffer_size=self.buffer))

    def _open(self):
        import datasets

        files = [str(path) for path in self.paths]
        how = dict(data_files=files, split="train", streaming=True)
        return undecoded(datasets.load_dataset("parquet", **how))


def _named(row: dict) -> str:
    """Names a row by its content, because its place differs from round to round."""
    found = hashlib.sha256()
    for key, value in row.items():
        value = value.get("bytes") if isinstance(value, dict) else value
        found.update(key.encode())
        found.update(value if isinstance(value, bytes) else repr(value).encode())
    words = next((value for value in row.values() if isinstance(value, str)), "")
    return f"row {found.hexdigest()[:12]} ({words[:40]!r})"


def undecoded(rows):
    """Returns rows of `datasets` whose images stay bytes."""
    import datasets

    for column, feature in (rows.features or {}).items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
    return rows


def count_rows(paths: Sequence[Path]) -> int:
    """Returns parquet files' number of rows, by their footers. Raises ValueError for damage."""
    from pyarrow.parquet import ParquetFile

    total = 0
    for path in paths:
        try:
            with ParquetFile(path) as file:
                total += file.metadata.num_rows
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{path} cannot be read as parquet; write it again "
                f"({' '.join(str(error).split())[:120]})"
            ) from error
    return total


def embedded(given) -> bytes:
    """Returns the bytes of an image in a table, stored bare or as `datasets` does."""
    found = given.get("bytes") if isinstance(given, dict) else given
    if not isinstance(found, bytes):
        raise ValueError(f"an image is a {type(found).__name__}; expected bytes")
    return found
