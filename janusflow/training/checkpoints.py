"""Checkpoints of a run: safetensors files, complete or absent, never a pickle.

A checkpoint is `step-N.safetensors`, or, of sharded weights, a folder `step-N` (see
`sharded_checkpoints`); release 0.1 wrote files `step-N-of-K-R.safetensors` of K processes, which
are read. Each is written under another name, synced and renamed; a set with a file missing, or with
one that does not match its checksum, is passed over.
"""

from __future__ import annotations

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

NAME = re.compile(r"step-(\d+)(?:-of-(\d+)-(\d+))?\.safetensors")


def path_of(out: Path, step: int, rank: int = 0, world: int = 1) -> Path:
    part = f"-of-{world:05d}-{rank:05d}" if world > 1 else ""
    return out / f"step-{step:08d}{part}.safetensors"


def write(path: Path, tensors: dict[str, Tensor], meta: dict[str, str]) -> None:
    """Atomically, synced to the disk with the folder's entry. OSError says what still stands."""
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
    """Removes all but the newest `keep` whole checkpoints and the milestones, and what was left
    half-written.

    Those beyond the step `now`, where the run stands, could not be read when it went on: they
    count for nothing, and stay until the run has passed them.
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
    """Steps of which all files are there, the newest first."""
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
    """The files of a whole checkpoint in the processes' order."""
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
    """Whether a checkpoint is a folder of shards that was not merged."""
    folder = sharded_checkpoints.path_of(out, step)
    return sharded_checkpoints.is_complete(folder) and not path_of(out, step).exists()


def read(
    out: Path, step: int, wanted: Callable[[str], bool] = lambda _: True
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Whole tensors, shards joined, and the metadata; ValueError if a file is damaged. Of shards
    only the tensors of `wanted` names are read.
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
        raise ValueError(f"the files of step {step} in {out} do not fit together") from error
    return tensors, meta


def _read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(check_file(path), "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            meta = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error})") from error
    if meta.get("sha256") != digests.of_tensors(tensors):
        raise ValueError(f"{path} does not match its checksum")
    return tensors, meta


def settings_of(meta: dict[str, str]) -> dict:
    """The settings that a checkpoint was written with; ValueError if they cannot be read."""
    return parse_object(meta.get("settings", "{}"), Path("a checkpoint's settings"))


def newest(
    out: Path, wanted: Callable[[str], bool] = lambda _: True
) -> Iterator[tuple[int, dict[str, Tensor], dict[str, str]]]:
    """Steps, tensors and metadata of the readable checkpoints, the newest first; a damaged one is
    passed over with a warning.
    """
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
    """The newest that is whole; ValueError if there is none."""
    for found in newest(out, wanted):
        return found
    raise ValueError(f"{out} holds no whole checkpoint; train first")


def merge(out: Path) -> Path:
    """Writes the newest checkpoint of sharded weights as one file beside its folder.

    ValueError if it is one file already, or none.
    """
    step = next(iter(complete(out)), None)
    if step is None or not is_sharded(out, step):
        raise ValueError(f"{out} holds no checkpoint in shards; there is nothing to merge")
    write(path_of(out, step), *read(out, step))
    return path_of(out, step)
