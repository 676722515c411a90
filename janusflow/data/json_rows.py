"""JSON files that consist of one list of rows, such as LLaVA's."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from janusflow.data.jsonl import image_names
from janusflow.data.records import Record, to_record
from janusflow.data.rows import described, kept, why_not
from janusflow.data.sample_files import Named, Scan, fetch
from janusflow.data.samples import BrokenSample
from janusflow.utils.safe_io import read_text

OTHER = "JSON that is no list of objects; write one object per line, as .jsonl"


@dataclass(frozen=True)
class Rows:
    """The objects of one kind in a list; image paths are relative to the file's folder."""

    path: Path
    kind: str
    rows: tuple[object, ...]
    numbers: tuple[int, ...]  # places in the list, from 1
    ignored: Collection[str] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Record:
        name, row = f"{self.path} entry {self.numbers[index]}", self.rows[index]
        if not isinstance(row, dict):
            raise BrokenSample(name, f"it is of type {type(row).__name__}; expected an object")
        home = self.path.parent
        return to_record(row, self.kind, name, lambda given: fetch(home, given), self.ignored)


def open_json(path: Path, ignored: Collection[str] = (), named: Named | None = None) -> Scan:
    """Opens a JSON file's rows, by kind; a file of anything but objects in a list is skipped.

    Image paths in the rows are added to `named`. Raises ValueError for a row with an unknown key
    that seems to name a file.
    """
    try:
        rows = json.loads(read_text(path, "results_bytes"))
    except (ValueError, RecursionError) as error:
        return Scan(skipped={str(path): f"it cannot be read as JSON ({error!s:.120})"})
    if not isinstance(rows, list) or not any(isinstance(row, dict) for row in rows):
        return Scan(skipped={str(path): OTHER})
    found, places = Scan(), {}
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            found.skip(f"{path} entry {number}", "it is no JSON object")
            continue
        kind = described(row, f"{path} entry {number}", ignored)
        if kind is None:
            found.skip(f"{path} entry {number}", why_not(row))
            continue
        places.setdefault(kind, []).append((number, row))
        if named is not None:
            named.add(path.parent, kind, image_names(kept(row, ignored)))
    for kind, own in places.items():
        numbers, chosen = zip(*own, strict=True)
        found.sources.append((kind, Rows(path, kind, chosen, numbers, ignored)))
    return found
