"""Files of strangers: read within limits, and only what is a file."""

from __future__ import annotations

import io
import json
import os
import stat
from pathlib import Path

from janusflow.utils import limits

STREAMS = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")  # what a shell puts for a pipe


def read_bytes(path: Path, limit: str, what: str) -> bytes:
    """A file's content; ValueError if there is none, or more than the limit of that name.

    Devices and pipes without a name of the shell's are refused, because they may never end.
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
        raise ValueError(f"{what} {str(path)!r} cannot be opened ({reason})") from error
    if content is None:
        raise ValueError(f"{what} {str(path)!r} cannot be opened (it is no file)")
    limits.hold(limit, len(content), f"{what} {str(path)!r} is larger than that")
    return content


def check_file(path: Path) -> Path:
    """The path itself; ValueError for a pipe or a device, which what maps files would wait for."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{str(path)!r} is no file; fetch it again")
    return path


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe without a writer waits


def _up_to(file: io.RawIOBase, size: int) -> bytes | None:
    """The first `size` bytes; None of a file that has nothing to say now."""
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
    """The lines of a UTF-8 file that are not empty; ValueError names the line at fault."""
    return split_prompts(read_bytes(path, "prompts_bytes", "prompt file"), str(path))


def split_prompts(content: bytes, name: str) -> list[str]:
    """Prompts of a file's bytes; see `read_prompts`."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 text (byte {error.start})") from error
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for number, line in enumerate(lines, 1):
        check_prompt(line, f"{name}, line {number},", "; expected one prompt a line")
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise ValueError(f"{name} holds no prompts; expected one a line")
    return prompts


def check_prompt(text: str, name: str, advice: str = "; shorten it") -> None:
    """ValueError for a text that no prompt is."""
    longest = limits.most("prompt")
    if "\0" in text or len(text) > longest:
        raise ValueError(f"{name} holds a NUL or more than {longest} characters{advice}")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(f"{name} is not Unicode text; write it in UTF-8")


def read_text(path: Path, limit: str) -> str:
    """A text file of a model's folder; ValueError if it is missing, too large or not UTF-8."""
    try:
        missing = not path.exists()
    except (OSError, ValueError):  # no name of a file at all; what opens it will say so
        missing = False
    if missing:
        raise ValueError(f"{str(path.parent)!r} lacks {path.name}; take it from the checkpoint")
    try:
        return read_bytes(path, limit, "file").decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(path)!r} cannot be read as UTF-8 text: {error}") from None


def parse_object(text: str, path: Path) -> dict:
    """Strict JSON: an object at the top, every number finite."""
    try:
        content = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} is no valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{str(path)!r} holds a {type(content).__name__}; expected a JSON object")
    return content


def read_object(path: Path, limit: str = "config_bytes") -> dict:
    """The JSON object in a file; ValueError says what is wrong with it."""
    return parse_object(read_text(path, limit), path)


def _refuse(constant: str):
    raise ValueError(f"{constant} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    return number if number - number == 0 else _refuse(text)
