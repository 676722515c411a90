"""Checkpoints of sharded weights: a folder of safetensors to which every process writes its own
shards.

They are written by torch.distributed.checkpoint, and any number of processes can load them. No
process ever holds more than its part. A folder gets its final name once it is complete; each file's
checksum is stored beside it to detect damage.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from janusflow.training.ema import State, load_moments
from janusflow.utils import atomic_io
from janusflow.utils.digests import of_file
from janusflow.utils.safe_io import read_object

META = "meta.json"
Wait = Callable[[], None]  # for all processes


def path_of(out: Path, step: int) -> Path:
    return out / f"step-{step:08d}"


def is_complete(folder: Path) -> bool:
    return folder.is_dir() and not folder.suffix and (folder / META).is_file()


def write(
    folder: Path,
    named: Mapping[str, Tensor],
    meta: Mapping[str, str],
    rank: int,
    world: int,
    wait: Wait,
) -> None:
    """Writes the shards of every process; the folder gets its final name once all are on disk."""
    import torch.distributed.checkpoint as dcp

    part = folder.with_suffix(".part")
    if rank == 0:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    wait()
    writer = dcp.HuggingFaceStorageWriter(path=str(part), save_distributed=True)
    dcp.save(dict(named), storage_writer=writer)
    wait()
    for file in _share(part, rank, world):
        (part / f"{file.name}.sha256").write_text(of_file(file), encoding="utf-8")
    wait()
    if rank == 0:
        (part / META).write_text(json.dumps(dict(meta)), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)
        atomic_io.sync_path(folder.parent)
    wait()


def _share(folder: Path, rank: int, world: int) -> list[Path]:
    """Returns the files that a process is responsible for."""
    return sorted(folder.glob("*.safetensors"))[rank::world]


def check(folder: Path, rank: int = 0, world: int = 1) -> None:
    """Raises ValueError if a file of this process's share does not match its checksum."""
    for file in _share(folder, rank, world):
        said = file.with_name(f"{file.name}.sha256")
        if not said.is_file() or said.read_text(encoding="utf-8") != of_file(file):
            raise ValueError(
                f"{file} does not match its checksum; resume from an earlier checkpoint"
            )


def read_meta(folder: Path) -> dict[str, str]:
    """Returns the metadata that the processes wrote. Raises ValueError if it cannot be read."""
    return read_object(folder / META)


def read(folder: Path, wanted: Callable[[str], bool] = lambda _: True) -> dict[str, Tensor]:
    """Returns whole tensors of these names, in one process without the others."""
    import torch.distributed.checkpoint as dcp

    reader = dcp.HuggingFaceStorageReader(path=str(folder))
    known = reader.read_metadata().state_dict_metadata
    found = {
        name: torch.empty(about.size, dtype=about.properties.dtype)
        for name, about in known.items()
        if wanted(name)
    }
    if found:
        dcp.load(found, storage_reader=reader, no_dist=True)
    return found


@torch.no_grad()
def load(state: State, folder: Path, step: int) -> None:
    """Loads each process's shards into the state, whatever the number of processes was before.

    Raises ValueError for a missing tensor or another shape.
    """
    import torch.distributed.checkpoint as dcp

    reader = dcp.HuggingFaceStorageReader(path=str(folder))
    known = reader.read_metadata().state_dict_metadata
    parameters = state.parameters
    found: dict[str, Tensor] = {name: p.detach() for name, p in parameters.items()}
    found |= {f"ema.{name}": x for name, x in state.ema.items()}
    for name, tensor in found.items():
        if name not in known or known[name].size != tensor.shape:
            shape = tuple(tensor.shape)
            raise ValueError(
                f"the checkpoint in {folder} has no {name!r} of shape {shape}; resume with the "
                "same model"
            )
    for name, about in known.items():
        if name.startswith(("optimizer", "group")):
            owner = name.partition(".")[2].rpartition(".")[0]
            like = parameters.get(owner)
            same = like is not None and like.shape == about.size
            kind, empty = about.properties.dtype, torch.empty_like if same else torch.empty
            found[name] = empty(like if same else about.size, dtype=kind)
    dcp.load(found, storage_reader=reader)
    load_moments(state, found)
    state.step = step
