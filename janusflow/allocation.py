"""Memory that a process frees stays with it: what torch frees in a step, the next step asks again.

glibc gives blocks of more than 128 KiB back to the system when they are freed, and the system then
zeroes every page of the next ones: up to a quarter of a small model's training step on a CPU.
"""

from __future__ import annotations

import ctypes
import sys

# malloc.h: the parameter's number, and what it becomes.
SETTINGS = {
    "MALLOC_TRIM_THRESHOLD_": (-1, 2**31 - 1),  # bytes free at the heap's end before they go back
    "MALLOC_TOP_PAD_": (-2, 2**26),  # bytes that the heap grows by
    "MALLOC_MMAP_THRESHOLD_": (
        -3,
        2**25,
    ),  # bytes of a block that is mapped for itself; 2^25 at most
}


def keep_freed(environment) -> bool:
    """Tells glibc to keep freed memory, but for what `environment` sets; False on another libc.

    It holds for the whole process, so the command line calls it and the library does not.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(mallopt(*setting) for name, setting in SETTINGS.items() if name not in environment)
