"""The memory that is free on a device, and what this process uses."""

import os
from pathlib import Path

import torch


def free(device: torch.device) -> int | None:
    """Returns the bytes that are available on a device; None if that is unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    if device.type != "cpu":
        return None
    found = [_of_machine(), _of_group()]
    return min((size for size in found if size is not None), default=None)


def _of_machine(path: str = "/proc/meminfo") -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in Path(path).read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _of_group(folder: str = "/sys/fs/cgroup") -> int | None:
    """Returns a container's memory left; file pages that were not used lately count as free."""
    group = Path(folder)
    try:
        most, now = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        told = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(most - now + int(told.get("inactive_file", 0)), 0)
    except (OSError, ValueError):  # no group, or "max"
        return None


def of_program() -> int:
    """Returns the bytes that this process uses now, with the interpreter and its libraries."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def check_room(count: int, each: int, device: torch.device) -> None:
    """Raises ValueError if so many images, of at least `each` bytes, do not fit on the device.

    This is checked before memory is taken, because the system may kill a process that takes too
    much.
    """
    room = free(device)
    if room is not None and count * each > room:
        raise ValueError(
            f"{count:,} images at once take at least {count * each / 2**30:.3g} GiB and "
            f"{room / 2**30:.3g} are free; make fewer at once, at most {room // each:,}"
        )
