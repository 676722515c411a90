"""WebDataset shards: tar files in which adjacent `key.jpg` and `key.txt` or `key.json` form a
sample.

Opening scans the headers once and stores the start of each sample (eight bytes), so samples can be
read by number in any order. Aizman et al. 2019, arXiv 2001.01858.
"""

from array import array
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, islice
from pathlib import Path

from janusflow.data.records import Record, parse_row, to_record
from janusflow.data.rows import SOURCES, TARGETS, image_keys, kind_of, why_not
from janusflow.data.rows import TEXTS as ROW_TEXTS
from janusflow.data.sample_files import Scan
from janusflow.data.samples import BrokenSample
from janusflow.data.tar_index import Member, members
from janusflow.utils.limits import hold
from janusflow.utils.text import printable

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
TEXTS = ("txt", "text", "caption", "prompt")
MAX_TEXT = 16 * 2**20  # bytes of a text or of a JSON object
MAX_MEMBERS = 256  # of one sample
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
STRAY = "stray"  # a text file without anything beside it


@dataclass(frozen=True)
class Shards:
    """Samples of one kind in tar files, in file order.

    `starts` are their byte offsets, file by file.

    A member that leads out of the archive, is a link or is truncated makes its sample broken.
    """

    paths: tuple[Path, ...]
    starts: tuple[Sequence[int], ...]
    kind: str
    ignored: Collection[str] = ()

    def __post_init__(self):
        object.__setattr__(self, "ends", list(accumulate(map(len, self.starts))))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> Record:
        which = bisect_right(self.ends, index)
        before = self.ends[which - 1] if which else 0
        path, start = self.paths[which], self.starts[which][index - before]
        name, row = read(path, start, self.ignored)
        return to_record(row, self.kind, name, lambda content: content, self.ignored)


def refuse_compressed(path: Path) -> None:
    """Raises ValueError for a shard whose name says that it is compressed."""
    if path.name.endswith(COMPRESSED):
        raise ValueError(
            f"{path} is compressed, so samples in it have no fixed positions; decompress it to .tar"
        )


def open_shards(paths: Sequence[Path], ignored: Collection[str] = ()) -> Scan:
    """Opens the samples of tar files, by kind.

    A sample with JSON is classified by its keys, one without by its file suffixes. Unreadable
    samples count to the file's first kind. Raises ValueError for a file that is not a tar, is
    compressed, has no sample with text, or has a key that is not understood.
    """
    found, by_kind = Scan(), {}
    for path in paths:
        for kind, starts in _by_kind(path, index(path), ignored, found).items():
            by_kind.setdefault(kind, []).append((path, starts))
    for kind, own in by_kind.items():
        found.sources.append((kind, Shards(*zip(*own, strict=True), kind, ignored)))
    return found


def _by_kind(
    path: Path, starts: array, ignored: Collection[str], skipped: Scan
) -> dict[str, array]:
    """Returns the offsets of the samples of each kind; a lone text is a stray caption."""
    kinds = [_kind_at(path, start, ignored) for start in starts]
    _check_together(path, kinds)
    told = [kind for kind, _, _ in kinds if kind]
    pictured = next((kind for kind in told if kind not in ("text", STRAY)), None)
    first = pictured or ("text" if told else None)
    found: dict[str, array] = {}
    for start, (kind, name, why) in zip(starts, kinds, strict=True):
        if kind == STRAY:
            kind, why = (None, "a text without its image") if pictured else ("text", "")
        if why:
            skipped.skip(f"{path} {name}", why)
        elif kind or first:
            found.setdefault(kind or first, array("q")).append(start)
    if not found or first is None:
        raise ValueError(
            f"no sample of {path} has an image and a text, a question and an answer, or a text; "
            "check the names of its files"
        )
    return found


def _check_together(path: Path, kinds: list[tuple[str | None, str, str]]) -> None:
    """Raises ValueError for an image and a text of one key that do not stand together."""
    texts = {_split(name)[0] for kind, name, _ in kinds if kind == STRAY}
    others = (_split(name)[0] for _, name, why in kinds if why.startswith("an image"))
    if apart := next((key for key in others if key in texts), None):
        raise ValueError(
            f"{path} has an image and a text of {printable(apart, 60)!r} that do not stand "
            "together; write the tar with sorted names (tar --sort=name)"
        )


def _kind_at(path: Path, start: int, ignored: Collection[str]) -> tuple[str | None, str, str]:
    """Returns the kind of the sample at an offset, its name, and why it is not a sample.

    The reason is STRAY for a bare text file, and missing if it cannot be read.
    """
    name = ""
    try:
        with open(path, "rb", buffering=0) as file:
            _, own = next(_samples(file, path.stat().st_size, start), (start, []))
            name = own[0].name if own else ""
            suffixes = {_split(member.name)[1].rpartition(".")[2] for member in own}
            row = _row(file, own, str(path), ignored, whole=False)
        kind = kind_of(row, ignored)
    except (BrokenSample, OSError):
        return None, name, ""
    except ValueError as error:
        raise ValueError(f"{path} {name}: {error}") from None
    unread = sorted(suffixes - {*TEXTS, *IMAGE_SUFFIXES, "json"})
    if kind == "text" and unread:
        return None, name, f"the text of a .{unread[0]}, whose format is not read"
    if kind is None:
        return None, name, why_not(row) if row else f"its files are .{', .'.join(sorted(suffixes))}"
    return (STRAY if kind == "text" and "json" not in suffixes else kind), name, ""


def index(path: Path) -> array:
    """Returns the byte offsets of the samples. Raises ValueError if the file is not a tar."""
    with open(path, "rb", buffering=0) as file:
        if file.read(2) == b"\x1f\x8b":
            raise ValueError(
                f"{path} is compressed, so samples in it have no fixed positions; decompress it "
                "first"
            )
        starts = array("q", (start for start, _ in _samples(file, path.stat().st_size)))
        first = next(_samples(file, path.stat().st_size), (0, [Member("", 0)]))[1][0]
    if not starts or not first.name:
        raise ValueError(
            f"{path} is no tar file with samples ({first.fault or 'it is empty'}); write it again"
        )
    return starts


def read(path: Path, start: int, ignored: Collection[str] = ()) -> tuple[str, dict]:
    """Returns name and row of the sample at this offset: its JSON, with "text" and "image" as
    bytes.

    Text files whose ending is `ignored` are not read. Raises BrokenSample for a sample that cannot
    be read completely.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            length = path.stat().st_size
            _, own = next(_samples(file, length, start), (start, [Member("", start, fault="gone")]))
            name = f"{path} {own[0].name or 'after its last sample'}"
            return name, _row(file, own, name, ignored)
    except OSError as error:
        raise BrokenSample(f"{path} byte {start}", str(error)) from error


def _samples(file, length: int, begin: int = 0) -> Iterator[tuple[int, list[Member]]]:
    """Yields adjacent members with one key, and the first's offset; of very many the first."""
    named = (m for m in members(file, length, begin) if m.fault or _split(m.name)[1])
    for _, own in groupby(named, key=lambda m: _split(m.name)[0]):
        kept = list(islice(own, MAX_MEMBERS + 1))
        yield kept[0].begin, kept


def _split(name: str) -> tuple[str, str]:
    """ "a/b.0.jpg" -> ("a/b", "0.jpg"): a key ends at its first dot."""
    folder, slash, last = name.rpartition("/")
    stem, _, suffix = last.partition(".")
    return (folder + slash + stem, suffix.lower()) if stem else (name, "")


def _row(file, own: list[Member], name: str, ignored: Collection[str], whole: bool = True) -> dict:
    """Returns the row of a sample; unless `whole`, images and texts are not read."""
    if len(own) > MAX_MEMBERS:
        raise BrokenSample(name, f"it has more than {MAX_MEMBERS} files")
    if faulty := next((m for m in own if m.fault), None):
        raise BrokenSample(name, f"{faulty.name or 'the archive'}: {faulty.fault}")
    row, images, texts = {}, [], {}
    for member in own:
        suffix = _split(member.name)[1].rpartition(".")[2]
        if suffix == "json":
            row |= parse_row(_content(file, member, name, MAX_TEXT), name)
        elif suffix in TEXTS and suffix not in ignored:
            text = _decoded(_content(file, member, name, MAX_TEXT), name) if whole else "unread"
            texts[suffix] = text
        elif suffix in IMAGE_SUFFIXES:
            content = _content(file, member, name) if whole else b""
            part = _split(member.name)[1].rpartition(".")[0]
            if part in (*SOURCES, *TARGETS):
                row[part] = content
            else:
                images.append((member.name, content))
    if len(texts) > 1:
        first, second = list(texts)[:2]
        raise ValueError(
            f"it has two texts, .{first} and .{second}; choose one by --set data.ignore={second} "
            f"or --set data.ignore={first}"
        )
    if texts:  # a text file of the sample counts before its JSON
        row = {key: value for key, value in row.items() if key not in ROW_TEXTS}
        row["text"] = next(iter(texts.values()))
    named = image_keys(row)  # where an image once lay: here it lies beside its row
    row = {key: value for key, value in row.items() if key not in named}
    return row | ({"image": [content for _, content in sorted(images)]} if images else {})


def _content(file, member: Member, name: str, most: int | None = None) -> bytes:
    if most is None:
        try:
            hold("image_bytes", member.size, f"{member.name} has {member.size} bytes")
        except ValueError as error:
            raise BrokenSample(name, str(error)) from None
    elif member.size > most:
        raise BrokenSample(name, f"{member.name} is longer than {most} bytes")
    file.seek(member.start)
    return file.read(member.size)


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise BrokenSample(name, f"its text is no UTF-8 (byte {error.start})") from None
