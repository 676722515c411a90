"""Files that are whole or absent: written aside, and renamed once they are complete."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

AGAIN = "make space or the folder writable, and give the same command again"
UNWRITABLE = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.EFBIG}
PART = ".part"  # the ending of a file that is being written


@contextmanager
def replacing(path: Path, sync: bool = True, tag: str = "") -> Iterator[Path]:
    """A path to write to; when the block ends without an error, what is there takes `path`'s name.

    A link stays a link: the file that it points at is replaced. A new file has the mode that the
    umask gives, an old one keeps its own, whatever the writer in between did. After any exception
    the old file is as it was and nothing half-written is left. With `sync` the bytes and the name
    are on the disk before this returns. `tag` tells writers of one file in several processes apart.

    OSError, in one sentence with what to do, where nothing can be written or the file is read-only.
    """
    try:
        target = Path(path).resolve()
        part = part_of(target, tag)
        mode = _reserve(target, part)
    except OSError as error:
        raise refused(path, error) from error
    try:
        yield part
        os.chmod(part, mode)
        if sync:
            sync_path(part)
        os.replace(part, target)
        if sync:
            sync_path(target.parent)
    except (OSError, SafetensorError) as error:
        drop(part)
        raise refused(path, error) from error
    except BaseException:
        drop(part)
        raise


def part_of(path: Path, tag: str = "") -> Path:
    """Where a file lies while it is written: hidden, beside it, of a name that is not too long."""
    name = path.name.encode()[:200].decode(errors="ignore")
    return path.with_name(f".{name}{tag and '.'}{tag}{PART}")


def _reserve(target: Path, part: Path) -> int:
    """Creates the part, empty, and returns the mode that the finished file is to have."""
    found = target.stat().st_mode if target.exists() else None
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(target))
    if found is not None and (not found & 0o222 or not os.access(target, os.W_OK)):
        raise PermissionError(errno.EACCES, "it is read-only", str(target))
    drop(part)  # of a run that was killed; its mode is not to be kept
    with open(part, "xb"):
        mode = part.stat().st_mode
    return (mode if found is None else found) & 0o777


def write_text(path: Path, text: str, sync: bool = True) -> Path:
    """Writes a UTF-8 text file atomically; see `replacing`."""
    with replacing(path, sync) as part:
        part.write_text(text, encoding="utf-8")
    return path


def write_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> None:
    """Writes a safetensors file with `meta` in its header; see `replacing`."""
    with replacing(path) as part:
        save_file(on_cpu(tensors), part, dict(meta))


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, detached, contiguous and on the CPU."""
    return {name: x.detach().cpu().contiguous() for name, x in tensors.items()}


def readable(folder: Path) -> None:
    """Gives the folder's files, and those of its subfolders, the mode that the umask says.

    Libraries write weights as mode 0600, which another account then cannot read.
    """
    probe = folder / f".umask{PART}"
    drop(probe)
    with open(probe, "xb"):
        mode = probe.stat().st_mode & 0o777
    drop(probe)
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o777 == 0o600:
            os.chmod(path, mode)


def sync_path(path: Path) -> None:
    """Lets the bytes of a file, or the entries of a folder, reach the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def refused(path: Path, error: Exception) -> OSError:
    """What to say where nothing can be written: what came, and what to do."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:160]
    return OSError(f"{path} cannot be written ({reason}); what was complete stays: {AGAIN}")


def advised(error: OSError) -> str:
    """The error in words; where a disk or a permission is at fault, with what to do."""
    if error.errno not in UNWRITABLE:
        return str(error)
    said = str(refused(Path(error.filename or "a file"), error))
    forbidden = error.errno in (errno.EACCES, errno.EPERM)
    return said.replace("be written", "be read or written") if forbidden else said


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
