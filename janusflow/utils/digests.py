"""SHA-256 of files, buffers and tensors, in hexadecimal."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from janusflow.utils.safe_io import check_file

BLOCK = 2**20  # bytes that are read at once


def of_file(path: Path) -> str:
    """Returns the SHA-256 of a file's content, as `sha256sum` prints it.

    Raises ValueError for a folder, pipe or device.
    """
    found = hashlib.sha256()
    with open(check_file(path), "rb") as file:
        while block := file.read(BLOCK):
            found.update(block)
    return found.hexdigest()


def of_bytes(content) -> str:
    """Returns the SHA-256 of a text (encoded as UTF-8) or of any object with a buffer."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def of_tensors(tensors: Mapping[str, Tensor], salt: str = "") -> str:
    """Returns the SHA-256 of names, shapes, dtypes and values of tensors on a CPU, by name."""
    found = hashlib.sha256(salt.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()
