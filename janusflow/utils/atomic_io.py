"""Atomic writing: a file is written under a temporary name and renamed once it is complete."""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

AGAIN = "free some space or make the folder writable, and run the same command again"
UNWRITABLE = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.EFBIG}
PART = ".part"  # the ending of a file that is being written


@contextmanager
def replacing(path: Path, sync: bool = True, tag: str = "") -> Iterator[Path]:
    """Yields a temporary path; when the block ends without an error, that file replaces `path`.

    A symbolic link is kept and the file it points to is replaced. A new file gets the mode that the
    umask gives, and an existing file keeps its mode. After any exception the old file is unchanged
    and no temporary file is left. With `sync` the content and the directory entry are flushed to
    disk before this returns. `tag` keeps several processes that write the same file apart. Raises
    OSError, with advice, if nothing can be written or the file is read-only.
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
    """Returns the temporary path of a file: hidden, in the same folder, its name not too long."""
    name = path.name.encode()[:200].decode(errors="ignore")
    return path.with_name(f".{name}{tag and '.'}{tag}{PART}")


def _reserve(target: Path, part: Path) -> int:
    """Creates the empty temporary file and returns the mode that the finished file should have."""
    found = target.stat().st_mode if target.exists() else None
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(target))
    if found is not None and (not found & 0o222 or not os.access(target, os.W_OK)):
        raise PermissionError(errno.EACCES, "it is read-only", str(target))
    drop(part)  # of a run that was killed; its mode is not to be kept
    with open(part, "xb"):
        mode = part.stat().st_mode
    return (mode if found is None else found) & 0o777


def write_text(path: Path, text: str) -> Path:
    """Writes a UTF-8 text file atomically; see `replacing`."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def write_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> None:
    """Writes a safetensors file atomically, with `meta` in its header; see `replacing`."""
    with replacing(path) as part:
        save_file(on_cpu(tensors), part, dict(meta))


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors detached, contiguous and on the CPU."""
    return {name: x.detach().cpu().contiguous() for name, x in tensors.items()}


def readable(folder: Path) -> None:
    """Gives the files of a folder and of its subfolders the mode that the umask says.

    Libraries write weights with mode 0600, which other accounts cannot read.
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
    """Flushes a file's content, or a folder's entries, to disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def refused(path: Path, error: Exception) -> OSError:
    """Returns the OSError to raise where nothing can be written: what was tried, and what to do."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:160]
    return OSError(f"{path} cannot be written ({reason}); complete files are kept: {AGAIN}")


def advised(error: OSError) -> str:
    """Returns the error as a sentence, with advice if a full disk or a permission caused it."""
    if error.errno not in UNWRITABLE:
        return str(error)
    said = str(refused(Path(error.filename or "a file"), error))
    forbidden = error.errno in (errno.EACCES, errno.EPERM)
    return said.replace("be written", "be read or written") if forbidden else said


def make_folder(path: Path) -> None:
    """Creates a folder and its missing parents.

    Raises ValueError if a file has its name, and OSError with advice if it cannot be created.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"{str(path)!r} is a file; name a folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refused(path, error) from error


def drop(path: Path) -> None:
    """Removes a file if it exists. A file that cannot be removed is left for the next run."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass
