"""Reads the tensors of a checkpoint folder: safetensors or `.bin`, one file or several, without
pickle.

`.bin` files are zip archives with a pickle inside. torch's weights-only reader builds only tensors
and plain containers from it, and maps the numbers instead of copying them.
"""

from pathlib import Path
from pickle import UnpicklingError
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from janusflow.utils.safe_io import read_object
from janusflow.utils.text import explained, printable

NAMES = ("model.safetensors", "pytorch_model.bin")


def read(folder: Path) -> dict[str, Tensor]:
    """Returns every tensor by its name.

    Raises ValueError for missing or damaged files and other contents.

    safetensors are preferred if both forms exist.
    """
    found: dict[str, Tensor] = {}
    for path in files(folder):
        tensors = _read_pickle(path) if path.suffix == ".bin" else _read_safetensors(path)
        found |= tensors
    return found


def names(path: Path) -> set[str]:
    """Returns the names of the tensors in a weight file, from its header if it has one."""
    return set(_read_pickle(path) if path.suffix == ".bin" else _read_safetensors(path, False))


def files(folder: Path) -> list[Path]:
    """Returns the weight files. Raises ValueError if one is missing."""
    for name in NAMES:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name]
        if index.is_file():
            return _indexed(index)
    raise ValueError(
        f"{str(folder)!r} holds no weights; expected {' or '.join(NAMES)}, or their index"
    )


def _indexed(index: Path) -> list[Path]:
    content = read_object(index, "index_bytes")
    with explained(f"{index} is not an index of weights", "download it again"):
        names = sorted(set(content["weight_map"].values()))
    if any(not isinstance(name, str) or Path(name).name != name for name in names):
        raise ValueError(f"{index} names files outside its folder; download it again")
    if any(Path(name).suffix not in (".bin", ".safetensors") for name in names):
        raise ValueError(
            f"{index} names files that are neither .safetensors nor .bin; download the model again"
        )
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing or not names:
        what = missing[0] if missing else "every file"
        raise ValueError(
            f"{str(index.parent)!r} lacks {what}, which {index.name} lists; download the model "
            "again"
        )
    return [index.parent / name for name in names]


def _read_safetensors(path: Path, values: bool = True) -> dict[str, Tensor | None]:
    with explained(f"{path} is damaged", "download it again", SafetensorError, OSError):
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) if values else None for name in file.keys()}


def _read_pickle(path: Path) -> dict[str, Tensor]:
    if not is_zipfile(path):
        raise ValueError(
            f"{path} is damaged or no zipped .bin (cut short, a pointer of git-lfs, or of a torch "
            "before 1.6); download it again"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UnpicklingError:
        raise ValueError(
            f"{path} holds more than tensors, or is damaged, so it is not opened; use a "
            ".safetensors file"
        ) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = printable(error, 160)
        raise ValueError(f"{path} is damaged ({reason}); download it again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected tensors by name")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(
                f"{path} holds {name!r:.60}, which is not a named tensor; use a .safetensors file"
            )
    return content
