"""Reads untrusted files within size limits, and regular files only."""

import io
import json
import os
import stat
from pathlib import Path

from janusflow.utils import limits

STREAMS = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")  # what a shell puts for a pipe


def read_bytes(path: Path, limit: str, what: str) -> bytes:
    """Returns a file's content.

    Raises ValueError if it cannot be opened or exceeds the limit of that name.

    Devices and pipes are refused, because they may never end; pipes that a shell names (/dev/stdin,
    /dev/fd/N) are read.
    """
    largest = limits.most(limit)
    try:
        with open(path, "rb", buffering=0, opener=_open_at_once) as file:
            stream = str(path).startswith(STREAMS)
            if stream:
                os.set_blocking(file.fileno(), True)
            ends = stream or stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            content = _up_to(file, largest + 1) if ends else None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(
            f"{what} {str(path)!r} cannot be opened ({reason}); check the path"
        ) from error
    if content is None:
        raise ValueError(f"{what} {str(path)!r} is not a file; give the path of a file")
    limits.hold(limit, len(content), f"{what} {str(path)!r} is larger than that")
    return content


def check_file(path: Path) -> Path:
    """Returns the path. Raises ValueError for a pipe or device, where mapping would block."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{str(path)!r} is not a file; download it again")
    return path


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe without a writer waits


def _up_to(file: io.RawIOBase, size: int) -> bytes | None:
    """Returns at most the first `size` bytes, or None for a file that has no data yet."""
    parts = []
    while size > 0:
        part = file.read(min(size, 2**20))
        if part is None:
            return None
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_prompts(path: Path) -> list[str]:
    """Returns the non-empty lines of a UTF-8 file, or of standard input for `-`.

    Raises ValueError naming the line at fault.
    """
    path = Path("/dev/stdin") if str(path) == "-" else path
    return split_prompts(read_bytes(path, "prompts_bytes", "prompt file"), str(path))


def split_prompts(content: bytes, name: str) -> list[str]:
    """Returns the prompts in a file's content, one per line; see `read_prompts`."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for number, line in enumerate(lines, 1):
        check_prompt(line, f"{name}, line {number},", "; expected one prompt a line")
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise ValueError(f"{name} holds no prompts; expected one a line")
    return prompts


def check_prompt(text: str, name: str, advice: str = "; shorten it") -> None:
    """Raises ValueError for a prompt that is too long, holds a NUL, or is not Unicode."""
    longest = limits.most("prompt")
    if len(text) > longest:
        raise ValueError(f"{name} has more than {longest} characters{advice}")
    if "\0" in text:
        raise ValueError(f"{name} holds a NUL character; remove it")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(f"{name} is not Unicode text; write it in UTF-8")


def lacks(path: Path) -> str:
    """Returns the error for a model folder without this file, which may be a training run."""
    folder = str(path.parent)
    if (path.parent / "settings.yaml").exists():
        export = f"export it by janusflow train --out {folder} --export my-model"
        return f"{folder!r} is a training run and no model; {export}"
    return f"{folder!r} lacks {path.name}; take it from the checkpoint"


def read_text(path: Path, limit: str) -> str:
    """Returns a text file's content. Raises ValueError if it is missing, too large or not UTF-8."""
    try:
        missing = not path.exists()
    except (OSError, ValueError):  # no name of a file at all; what opens it will say so
        missing = False
    if missing:
        raise ValueError(lacks(path))
    try:
        return read_bytes(path, limit, "file").decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{str(path)!r} cannot be read as UTF-8 text ({error}); save it as UTF-8"
        ) from None


def parse_object(text: str, path: Path) -> dict:
    """Parses strict JSON: an object with finite numbers. Raises ValueError otherwise."""
    try:
        content = json.loads(text, parse_constant=refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} is not valid JSON; correct it: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{str(path)!r} holds a {type(content).__name__}; expected a JSON object")
    return content


def read_object(path: Path, limit: str = "config_bytes") -> dict:
    """Reads a JSON object from a file. Raises ValueError that says what is wrong with it."""
    text = read_text(path, limit)
    content = parse_object(text, path)
    try:
        json.loads(text, object_pairs_hook=unique)
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is ambiguous: {error}; leave one out") from None
    return content


def read_optional(path: Path) -> dict:
    """Reads a JSON object from a file; an empty one without a file."""
    return read_object(path) if path.exists() else {}


def unique(pairs: list[tuple[str, object]]) -> dict:
    """Returns a JSON object's pairs as a dict. Raises ValueError for a key that comes twice; an
    argument `object_pairs_hook` of `json`.
    """
    if (again := repeated(pairs)) is not None:
        raise ValueError(f"it has the key {again!r:.60} twice")
    return dict(pairs)


def repeated(pairs: list[tuple[str, object]]) -> str | None:
    """Returns the first key of a JSON object that comes a second time, and None without one."""
    seen: set[str] = set()
    return next((name for name, _ in pairs if name in seen or seen.add(name)), None)


def refuse_constant(constant: str):
    """Raises ValueError for NaN or infinity in JSON; an argument `parse_constant` of `json`."""
    raise ValueError(f"{constant} is no JSON number; write null or a finite number")


def _finite(text: str) -> float:
    number = float(text)
    return number if number - number == 0 else refuse_constant(text)
