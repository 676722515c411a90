"""Output folders that only one run may write to at a time."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from janusflow.utils import processes
from janusflow.utils.atomic_io import (  # noqa: F401 (their old place)
    AGAIN,
    advised,
    drop,
    make_folder,
    refused,
)
from janusflow.utils.atomic_io import write_text as write  # noqa: F401

LOCK = ".lock"
HELD: list[Path] = []  # folders of this process, whose last word a signal must not cut off


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """A context that locks the folder and creates it if needed. Ctrl-C in it prints how to resume.

    With several processes the first one locks it for all. Raises ValueError if another run holds
    the lock, and OSError if the folder cannot be written.
    """
    if processes.rank() > 0:
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
    HELD.append(out)
    try:
        yield
    except KeyboardInterrupt as stop:
        if not getattr(stop, "told", False):
            print(f"janusflow: stopped; {stays(out)}", file=sys.stderr)
        stop.told = True  # once is enough
        raise
    finally:
        HELD.remove(out)
        lock.release()


def stays(out: Path) -> str:
    """Returns the message that an interrupted run prints."""
    return f"complete files are kept in {out}; the same command resumes"
