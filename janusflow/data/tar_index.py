"""A minimal reader of tar files: finds where each member lies and unpacks nothing to disk.

Python's tarfile parses the headers, but its archives keep every member and read extended headers of
any size into memory; here a member is read from its offset, and untrusted numbers are checked.
Formats: ustar, GNU with long names, pax. POSIX.1-2017, `pax`, "ustar Interchange Format".
"""

from collections.abc import Iterator
from dataclasses import dataclass
from tarfile import HeaderError, TarInfo
from typing import BinaryIO

BLOCK = 512
MAX_EXTRA = 2**20  # bytes of a long name, or of a member's extended header
FILES = (b"0", b"\0", b"7")
KINDS = {b"1": "a link", b"2": "a link", b"3": "a device", b"4": "a device", b"6": "a pipe"}
SKIPPED = (b"g", b"K", b"5")  # global headers, the targets of links, folders


@dataclass(frozen=True)
class Member:
    """A file in a tar: its headers start at `begin`, its content at `start`.

    `fault` says why it cannot be read. After a damaged header, which has no name, nothing follows.
    """

    name: str
    begin: int
    start: int = 0
    size: int = 0
    fault: str | None = None


def members(file: BinaryIO, length: int, begin: int = 0) -> Iterator[Member]:
    """Yields the files of a tar of `length` bytes, from a given header on; folders are skipped."""
    place, extra = begin, {}
    while place < length:
        file.seek(place)
        block = file.read(BLOCK)
        if not block.strip(b"\0") and len(block) == BLOCK:
            return
        try:
            name, size, kind = _header(block)
            content, place = place + BLOCK, place + BLOCK + -(-size // BLOCK) * BLOCK
            if kind in (b"L", b"x"):
                extra |= _extra(file, kind, content, size, length)
                continue
            size = int(extra.get("size", size))
            place = content + -(-size // BLOCK) * BLOCK
            name = extra.get("path", name)
        except ValueError as error:
            yield Member("", begin, fault=f"its header at byte {place} is damaged ({error})")
            return
        if kind not in SKIPPED:
            cut = content + size > length
            yield Member(name, begin, content, size, _fault(name, kind, extra, cut))
            if cut:
                return
        if kind not in (b"g", b"K"):  # which stand before another header of the same member
            begin, extra = place, {}
    yield Member("", length, fault="the file ends without its end mark; it may have been cut short")


def _header(block: bytes) -> tuple[str, int, bytes]:
    """Returns name, size and type in a header. Raises ValueError if it is invalid."""
    try:
        found = TarInfo.frombuf(block, "utf-8", "backslashreplace")
    except HeaderError as error:
        raise ValueError(str(error)) from error
    return found.name, _checked(found.size), found.type


def _checked(size: int) -> int:
    if not 0 <= size < 2**62:
        raise ValueError(f"its size is {size}")
    return size


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _extra(file: BinaryIO, kind: bytes, start: int, size: int, length: int) -> dict[str, str]:
    """Returns name and size of the next member, from the extended header before it."""
    if size > MAX_EXTRA or start + size > length:
        raise ValueError(f"its extended header has {size} bytes")
    file.seek(start)
    content = file.read(size)
    if kind == b"L":
        return {"path": _text(content)}
    found, place = {}, 0
    while place < size:
        gap = content.find(b" ", place, place + 20)
        end = place + int(content[place:gap]) if gap > place else 0
        if not place < gap < end <= size:
            raise ValueError("its extended header is garbled")
        key, _, value = content[gap + 1 : end].rstrip(b"\n").partition(b"=")
        found[_text(key)] = _text(value)
        place = end
    _checked(int(found.get("size", 0)))
    return found


def _fault(name: str, kind: bytes, extra: dict, cut: bool) -> str | None:
    if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
        return "its name leads out of the archive"
    if kind not in FILES or any(key.startswith("GNU.sparse") for key in extra):
        return f"it is {KINDS.get(kind, 'no plain file')}, which is not followed"
    return "it is cut short" if cut else None
