"""Files of a data folder: images, captions, and the result of scanning a path."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from janusflow.data.records import Record, Records
from janusflow.data.samples import BrokenSample
from janusflow.utils.limits import hold

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
CAPTIONS = (".txt", ".caption")  # kohya's name for the second


@dataclass
class Scan:
    """The result of scanning a path: sources by kind, and what is skipped with the reason."""

    sources: list[tuple[str, Records]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)  # file or row -> why
    _rows: dict[str, tuple[str, int]] = field(default_factory=dict)  # why -> the first, how many

    def skip(self, name: str, why: str) -> None:
        """Counts a skipped row, together with earlier ones of the same reason."""
        first, count = self._rows.get(why, (name, 0))
        self._rows[why] = (first, count + 1)
        more = f" and {count:,} more" if count else ""
        self.skipped.pop(f"{first} and {count - 1:,} more" if count > 1 else first, None)
        self.skipped[f"{first}{more}"] = why

    def add(self, other: Scan) -> None:
        self.sources += other.sources
        self.skipped |= other.skipped


@dataclass
class Named:
    """The absolute paths of images that rows name; `captioned` are those with a text to draw by."""

    every: set[Path] = field(default_factory=set)
    captioned: set[Path] = field(default_factory=set)

    def add(self, folder: Path, kind: str, names: Iterable) -> None:
        """Adds the images that a row of this kind names, relative to its folder."""
        own = {placed(folder, name) for name in names if isinstance(name, str) and "\0" not in name}
        self.every |= own
        if kind == "generation":
            self.captioned |= own


READERS: dict[str, Callable[[Path], Scan]] = {}


def reader(suffix: str) -> Callable:
    """A decorator that registers a reader for files with this suffix, in `--data` and in its
    folders.

    The function maps a path to [(kind, records), ...]; records have a length and return a `Record`
    by number, or raise BrokenSample.
    """
    if not suffix.startswith("."):
        raise ValueError(f"a reader's suffix is {suffix!r}; expected an ending such as '.csv'")

    def register(opened: Callable[[Path], list[tuple[str, Records]]]) -> Callable:
        READERS[suffix] = lambda path: Scan(list(opened(path)))
        return opened

    return register


@dataclass(frozen=True)
class Subset:
    """A selection of a source's records, by their numbers."""

    records: Records
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Record:
        return self.records[int(self.numbers[index])]


def fetch(folder: Path, given) -> bytes:
    """Returns the bytes of an image in the folder, given by its name or as {"path": name}.

    A name may not lead out of the folder. Links that are in the folder are followed, wherever they
    lead, as in the caches of the Hugging Face hub. Raises ValueError for a name that leads out, and
    for a file that cannot be read.
    """
    if isinstance(given, Mapping):
        given = next((given[key] for key in ("path", "file_name", "url") if given.get(key)), given)
    if not isinstance(given, str) or not given or "\0" in given:
        raise ValueError(f"an image is {given!r:.60}; expected the name of a file")
    if given.startswith(("http://", "https://")):
        raise ValueError(f"the image {given!r:.60} is on the web; download it first")
    try:
        path = placed(folder, given)
        inside = path.is_relative_to(placed(folder))
        if not inside and not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"the image {given!r:.60} is outside the folder of the data; move or link it inside"
            )
        if not path.is_file():
            raise ValueError(f"the image {given!r:.60} does not exist; check its name")
        hold("image_bytes", path.stat().st_size, f"{path.name} has {path.stat().st_size} bytes")
        return path.read_bytes()
    except OSError as error:  # a disk's fault, of this one file
        reason = error.strerror or error
        raise ValueError(
            f"the image {given!r:.60} cannot be read ({reason}); replace the file"
        ) from error


def placed(folder: Path, name: str = "") -> Path:
    """Returns the absolute path of a name in a folder, without "..", and with links as they are."""
    return Path(os.path.abspath(folder / name))


def read_caption(path: Path, name: str) -> str:
    """Returns a caption file's content. Raises BrokenSample under `name` if it cannot be read."""
    try:
        hold("prompts_bytes", path.stat().st_size, f"{path} has {path.stat().st_size} bytes")
        return path.read_text(encoding="utf-8-sig").strip()
    except FileNotFoundError:
        raise BrokenSample(name, f"it has no caption in {path.name}") from None
    except (OSError, ValueError) as error:
        raise BrokenSample(name, f"its caption cannot be read ({error})") from error
