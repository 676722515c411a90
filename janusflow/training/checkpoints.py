"""Checkpoints of a run: safetensors files that are complete or absent, never pickles.

A checkpoint is `step-N.safetensors`, or for sharded weights a folder `step-N` (see
`sharded_checkpoints`). Release 0.1 wrote `step-N-of-K-R.safetensors` from K processes, which can be
read. Files are written under a temporary name, flushed to disk and renamed. A checkpoint with a
missing or damaged file is skipped.
"""

import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from janusflow.training import sharded_checkpoints
from janusflow.utils import atomic_io, digests
from janusflow.utils.safe_io import check_file, parse_object
from janusflow.utils.text import explained

NAME = re.compile(r"step-(\d+)(?:-of-(\d+)-(\d+))?\.safetensors")


def path_of(out: Path, step: int, rank: int = 0, world: int = 1) -> Path:
    part = f"-of-{world:05d}-{rank:05d}" if world > 1 else ""
    return out / f"step-{step:08d}{part}.safetensors"


def write(path: Path, tensors: dict[str, Tensor], meta: dict[str, str]) -> None:
    """Writes a checkpoint atomically and flushes it to disk. Raises OSError with what remains."""
    tensors = atomic_io.on_cpu(tensors)
    try:
        atomic_io.write_tensors(path, tensors, meta | {"sha256": digests.of_tensors(tensors)})
    except OSError as error:
        last = next(iter(complete(path.parent)), None)
        stands = (
            f"the last whole checkpoint is step {last}" if last else "there is no whole one yet"
        )
        raise OSError(
            f"{path} cannot be written ({error.__cause__ or error}); {stands}; {atomic_io.AGAIN}"
        ) from error


def clean(out: Path, keep: int, milestone_every: int = 0, now: int | None = None) -> None:
    """Removes all but the milestones and the newest `keep` complete checkpoints, and unfinished
    files.

    Checkpoints beyond the current step `now` could not be read when the run resumed; they do not
    count towards `keep` and stay until the run has passed them.
    """
    whole = [step for step in complete(out) if now is None or step <= now]
    stay = set(whole[:keep])
    stay |= {step for step in whole if milestone_every and step % milestone_every == 0}
    for path in out.glob(f".step-*{atomic_io.PART}"):
        path.unlink()
    for path in out.glob("step-*"):
        match = NAME.fullmatch(path.name)
        if match and int(match[1]) not in stay and (now is None or int(match[1]) <= now):
            path.unlink()


def complete(out: Path) -> list[int]:
    """Returns the steps whose files are all there, newest first."""
    sets: dict[int, list[re.Match]] = {}
    for path in out.glob("step-*.safetensors"):
        if match := NAME.fullmatch(path.name):
            sets.setdefault(int(match[1]), []).append(match)
    whole = {step for step, found in sets.items() if _is_whole(found)}
    folders = (path for path in out.glob("step-*") if sharded_checkpoints.is_complete(path))
    return sorted(whole | {int(path.name[5:]) for path in folders}, reverse=True)


def _is_whole(found: list[re.Match]) -> bool:
    counts = [int(match[2] or 1) for match in found]
    return any(counts.count(count) == count for count in set(counts))


def files(out: Path, step: int) -> list[Path]:
    """Returns the files of a complete checkpoint in the order of the processes."""
    if is_sharded(out, step):
        return sorted(sharded_checkpoints.path_of(out, step).glob("*.safetensors"))
    single = path_of(out, step)
    if single.exists():
        return [single]
    found = sorted(out.glob(f"step-{step:08d}-of-*.safetensors"))
    counts = Counter(NAME.fullmatch(path.name)[2] for path in found if NAME.fullmatch(path.name))
    whole = next((count for count, held in counts.items() if int(count) == held), None)
    return [path for path in found if f"-of-{whole}-" in path.name]


def is_sharded(out: Path, step: int) -> bool:
    """Returns whether a checkpoint is a folder of shards that were not merged."""
    folder = sharded_checkpoints.path_of(out, step)
    return sharded_checkpoints.is_complete(folder) and not path_of(out, step).exists()


def read(
    out: Path, step: int, wanted: Callable[[str], bool] = lambda _: True
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns whole tensors, with shards joined, and the metadata.

    Of sharded checkpoints only tensors in `wanted` are read. Raises ValueError if a file is
    damaged.
    """
    if is_sharded(out, step):
        folder = sharded_checkpoints.path_of(out, step)
        sharded_checkpoints.check(folder)
        return sharded_checkpoints.read(folder, wanted), sharded_checkpoints.read_meta(folder)
    parts = [_read_file(path) for path in files(out, step)]
    tensors, meta = parts[0]
    try:
        for name in json.loads(meta.get("sharded", "[]")):
            tensors[name] = torch.cat([part[name] for part, _ in parts])
    except (ValueError, RecursionError, TypeError, KeyError, RuntimeError) as error:
        raise ValueError(
            f"the files of step {step} in {out} do not fit together; delete them and resume from "
            "an earlier step"
        ) from error
    return tensors, meta


def _read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with explained(
        f"{path} cannot be read", "check the file and its permissions", SafetensorError, OSError
    ):
        with safe_open(check_file(path), "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            meta = file.metadata() or {}
    if meta.get("sha256") != digests.of_tensors(tensors):
        raise ValueError(f"{path} does not match its checksum; resume from an earlier checkpoint")
    return tensors, meta


def settings_of(meta: dict[str, str]) -> dict:
    """Returns a checkpoint's settings. Raises ValueError if they cannot be read."""
    return parse_object(meta.get("settings", "{}"), Path("a checkpoint's settings"))


def newest(
    out: Path, wanted: Callable[[str], bool] = lambda _: True
) -> Iterator[tuple[int, dict[str, Tensor], dict[str, str]]]:
    """Yields step, tensors and metadata of checkpoints, newest first, without damaged ones."""
    for step in complete(out):
        try:
            tensors, meta = read(out, step, wanted)
        except ValueError as error:
            passed_over(error)
            continue
        yield step, tensors, meta


def passed_over(error: ValueError) -> None:
    warnings.warn(f"{error}; trying the checkpoint before it", stacklevel=3)


def latest(
    out: Path, wanted: Callable[[str], bool] = lambda _: True
) -> tuple[int, dict[str, Tensor], dict[str, str]]:
    """Returns the newest complete checkpoint. Raises ValueError if there is none."""
    for found in newest(out, wanted):
        return found
    raise ValueError(f"{out} has no complete checkpoint; train first")


def merge(out: Path) -> Path:
    """Writes the newest sharded checkpoint as one file beside its folder.

    Raises ValueError if it is a single file already, or if there is none.
    """
    step = next(iter(complete(out)), None)
    if step is None or not is_sharded(out, step):
        raise ValueError(f"{out} holds no checkpoint in shards; there is nothing to merge")
    write(path_of(out, step), *read(out, step))
    return path_of(out, step)
