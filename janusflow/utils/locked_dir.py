"""Folders that a run fills: held by one run at a time, their files whole or absent."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".lock"
AGAIN = "make space or the folder writable, and give the same command again"
UNWRITABLE = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.EFBIG}


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Holds the folder, which is made if need be; whoever stops the work is told what to do next.

    Of several processes of one run the first holds it for all. ValueError if another run holds it,
    OSError if it cannot be written.
    """
    if int(os.environ.get("RANK", 0)) > 0:
        yield
        return
    from filelock import FileLock, Timeout

    lock = FileLock(out / LOCK)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"another run is at work in {out}; wait for it, or choose another folder"
        ) from None
    except (OSError, NotImplementedError) as error:  # the latter where nothing can be locked
        raise refused(out, error) from error
    try:
        yield
    except KeyboardInterrupt:
        print(f"janusflow: stopped; {stays(out)}", file=sys.stderr)
        raise
    finally:
        lock.release()


def stays(out: Path) -> str:
    return f"what is whole stays in {out}, and the same command goes on from there"


def refused(path: Path, error: Exception) -> OSError:
    """What to say where nothing can be written: what came, and what to do."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:160]
    return OSError(f"{path} cannot be written ({reason}); what was whole stays: {AGAIN}")


def advised(error: OSError) -> str:
    """The error in words; where a disk or a permission is at fault, with what to do."""
    if error.errno not in UNWRITABLE:
        return str(error)
    said = str(refused(Path(error.filename or "a file"), error))
    forbidden = error.errno in (errno.EACCES, errno.EPERM)
    return said.replace("be written", "be read or written") if forbidden else said


def write(path: Path, text: str) -> Path:
    """Writes a text complete or not at all; OSError says what to do."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        drop(part)
        raise refused(path, error) from error
    return path


def make_folder(path: Path) -> None:
    """Makes a folder and those above it where they are missing; OSError says what to do."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refused(path, error) from error


def drop(path: Path) -> None:
    """Removes a file that may not be there; where nothing can be removed, the next run will."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass
