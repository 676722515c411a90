"""Tensors on disk that are whole or absent: safetensors files written aside, synced and renamed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from janusflow.utils.locked_dir import drop


def write(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> None:
    """Atomically, with the folder's entry on the disk too; OSError or SafetensorError leave nothing
    behind.
    """
    part = path.with_suffix(".part")
    try:
        save_file(on_cpu(tensors), part, dict(meta))
        settle(part, path)
    except BaseException:
        drop(part)
        raise


def settle(part: Path, path: Path) -> None:
    """Lets a finished file take its name: synced, renamed, and the folder synced."""
    _sync(part)
    os.replace(part, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.detach().cpu().contiguous() for name, x in tensors.items()}


def digest(tensors: Mapping[str, Tensor], salt: str = "") -> str:
    """SHA-256 of every name, shape, dtype and byte, in one order; tensors lie on the CPU."""
    found = hashlib.sha256(salt.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()
