"""glibc's heap, told to give large blocks back while weights are turned into others."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

MMAP_THRESHOLD = -3  # of malloc.h
SMALL, LARGE = 1 << 20, 32 << 20  # bytes; LARGE is where glibc's own rule ends up


@contextmanager
def returned() -> Iterator[None]:
    """Inside, every block of 1 MiB or more has pages of its own and leaves no hole when freed.

    Weights that are quantised while they are read lie among the blocks that they were made from:
    the 1.3B model in 8 bits then held 4.3 GB for 2.1 GB of weights. Other C libraries are left
    alone.
    """
    mallopt = _mallopt()
    mallopt(MMAP_THRESHOLD, SMALL)
    try:
        yield
    finally:
        mallopt(MMAP_THRESHOLD, LARGE)


def _mallopt():
    try:
        library = ctypes.CDLL("libc.so.6")
        return library.mallopt
    except (OSError, AttributeError):
        return lambda *_: 0
