"""Parquet files: rows by number, memory-mapped by Hugging Face `datasets`, or as a stream."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from janusflow.data.read_options import Data
from janusflow.data.records import Record, to_record
from janusflow.data.rows import IMAGES, PATHS, described, why_not
from janusflow.data.sample_files import Named, Scan, Subset, fetch
from janusflow.data.streams import Streamed, count_rows, embedded, undecoded
from janusflow.utils.text import printable

SEEN = 200  # letters of a text that are looked at for its kind


@dataclass(frozen=True)
class Table:
    """Rows of parquet files, read by `datasets`; images are bytes or `Image` columns."""

    path: Path
    rows: object
    kind: str
    ignored: Collection[str] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Record:
        name = f"{self.path} row {index + 1}"
        return to_record(self.rows[index], self.kind, name, self._fetch, self.ignored)

    def _fetch(self, given) -> bytes:
        """Returns the bytes of an image in the table, or in a file that the table names."""
        return fetch(self.path.parent, given) if names_file(given) else embedded(given)


def open_tables(
    paths: Sequence[Path], options: Data, seed: int, named: Named | None = None
) -> Scan:
    """Opens tables by row number, or as one stream with `options.streaming`."""
    if options.streaming and paths:
        return open_streams(paths, options, seed)
    found = Scan()
    for path in paths:
        found.add(open_table(path, options.ignore, named))
    return found


def open_table(path: Path, ignored: Collection[str] = (), named: Named | None = None) -> Scan:
    """Opens a table's rows, by kind; a row without an image, for example, is a text.

    Images that rows name are added to `named`. Raises ValueError for a table without rows, for
    columns that are not understood, and if none is a text.
    """
    import datasets

    if not count_rows([path]):
        raise ValueError(f"{path} has no rows; write it again, or leave it out")
    rows = undecoded(datasets.Dataset.from_parquet(str(path), keep_in_memory=False))
    found = Scan()
    kinds = kinds_of_rows(path, rows.data.table, ignored, found)
    read_not = [name for name in rows.column_names if name in ignored]
    for kind, numbers in kinds.items():
        if named is not None:
            _note(named, path.parent, kind, rows.data.table.drop(read_not), numbers)
        table = Table(path, rows, kind, ignored)
        whole = len(numbers) == len(rows)
        found.sources.append((kind, table if whole else Subset(table, numbers)))
    return found


def _note(named: Named, folder: Path, kind: str, table, numbers: np.ndarray) -> None:
    """Adds the images that these rows of a table, of one kind, give by their files' names."""
    for column in (name for name in table.column_names if name in (*IMAGES, *PATHS)):
        names = _file_names(table.column(column))
        if names is not None:
            named.add(folder, kind, names.take(numbers).to_pylist())


def _file_names(values):
    """Returns a column's names of files, null where it holds bytes; None for another column."""
    from pyarrow import compute, types

    if types.is_string(values.type) or types.is_large_string(values.type):
        return values
    fields = [f.name for f in values.type] if types.is_struct(values.type) else []
    if not {"bytes", "path"} <= set(fields):
        return None
    held = compute.is_valid(compute.struct_field(values, "bytes"))
    return compute.if_else(held, None, compute.struct_field(values, "path"))


def names_file(given) -> bool:
    """Returns whether the value of an image column is a file name and not the image's bytes."""
    if isinstance(given, dict):
        return given.get("bytes") is None and isinstance(given.get("path"), str)
    return isinstance(given, str)


def kinds_of_rows(
    path: Path, table, ignored: Collection[str] = (), skipped: Scan | None = None
) -> dict[str, np.ndarray]:
    """Returns the numbers of the rows of each kind, judged by which columns have a value.

    Rows that are not samples are reported to `skipped`.
    """
    names = table.column_names
    valid = np.stack([_valid(table.column(name)) for name in names], axis=1)
    patterns, first, which = np.unique(valid, axis=0, return_index=True, return_inverse=True)
    found: dict[str, list[np.ndarray]] = {}
    why = ""
    for number in np.argsort(first):
        row = {
            name: _short(table.column(name)[int(first[number])].as_py())
            for name, there in zip(names, patterns[number], strict=True)
            if there
        }
        kind = described(row, f"{path} row {first[number] + 1}", ignored)
        own = np.flatnonzero(which.reshape(-1) == number)
        if kind is not None:
            found.setdefault(kind, []).append(own)
            continue
        why = why_not(row)
        for one in own if skipped is not None else ():
            skipped.skip(f"{path} row {one + 1}", why)
    if not found:
        told = f" ({why})" if why else ""
        raise ValueError(f"{path} has the columns {', '.join(names)}; none of them is a text{told}")
    return {kind: np.sort(np.concatenate(own)) for kind, own in found.items()}


def _valid(column) -> np.ndarray:
    return column.is_valid().combine_chunks().to_numpy(zero_copy_only=False)


def _short(value):
    return value[:SEEN] if isinstance(value, str) and len(value) > SEEN else value


def open_streams(paths: Sequence[Path], options: Data, seed: int) -> Scan:
    """Opens a kind's tables as one stream. Raises ValueError for rows of several kinds."""
    from pyarrow.parquet import ParquetFile

    count_rows(paths)  # refuses what is no parquet
    by_kind: dict[str, list[Path]] = {}
    for path in paths:
        with ParquetFile(path) as file:
            try:
                head = next(file.iter_batches(batch_size=256), None)
            except OSError as error:
                why = printable(error, 120)
                told = f"row 1 of {path} cannot be read ({why}); write the file again"
                raise ValueError(told) from error
        if head is None:
            continue
        kinds = kinds_of_rows(path, _as_table(head), options.ignore)
        if len(kinds) > 1:
            raise ValueError(
                f"{path} has rows of several kinds ({', '.join(kinds)}), which a stream cannot "
                "part; set data.streaming=false, or write a file for each kind"
            )
        by_kind.setdefault(next(iter(kinds)), []).append(path)
    return Scan(
        [
            (
                kind,
                Streamed(
                    tuple(own), kind, count_rows(own), seed, options.buffer, ignored=options.ignore
                ),
            )
            for kind, own in by_kind.items()
        ]
    )


def _as_table(batch):
    import pyarrow

    return pyarrow.Table.from_batches([batch])
