"""Settings of glibc's malloc that return large blocks to the system while weights are converted."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

MMAP_THRESHOLD = -3  # of malloc.h
SMALL, LARGE = 1 << 20, 32 << 20  # bytes; LARGE is where glibc's own rule ends up


@contextmanager
def returned() -> Iterator[None]:
    """A context in which every block of at least 1 MiB is mapped separately and returned when
    freed.

    Without it, weights that are quantized while they are loaded end up between the float blocks
    they were made from: the 1.3B model in 8 bits then occupied 4.3 GB for 2.1 GB of weights. C
    libraries other than glibc are left alone.
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
