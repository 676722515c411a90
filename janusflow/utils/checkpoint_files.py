"""Checks a model folder before anything is built from it: safetensors only, and sizes that fit."""

import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from janusflow.utils import limits
from janusflow.utils.safe_io import check_file, read_object
from janusflow.utils.text import explained, printable

# What other libraries would obey in a stranger's folder: code, files or adapters from elsewhere.
LOADING = (
    "attn_implementation",
    "experts_implementation",
    "quantization_config",
    "fusion_config",
    "transformers_weights",
    "distributed_config",
    "per_layer_config",
)
HARMLESS = (None, False, "eager", "sdpa")  # what saved configurations may say of these
VARIANT = re.compile(r"(\.(?P<variant>[^.]+?))?(-\d{5}-of-\d{5})?\.safetensors")
SHARDS = re.compile(r"0*[1-9]\d*(\.\d+)? *[KMGT]I?B", re.IGNORECASE)
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
COUNTERS = "num_batches_tracked"  # a batch norm's, whole numbers that nothing reads
SLACK = 1_000_000  # parameters that a small network may have beyond twice its files'


def check_shards(size) -> None:
    """Raises ValueError unless `max_shard_size` is None, positive or a text such as "5GB"."""
    if size is None:
        return
    named = isinstance(size, str) and SHARDS.fullmatch(size.strip())
    if not named and not (type(size) is int and size > 0):
        raise ValueError(
            f"max_shard_size is {size!r:.60}; expected bytes, at least 1, or a text such as '5GB'"
        )


def check_variant_name(variant) -> None:
    """Raises ValueError unless the variant is None or consists of letters, digits, `_` and `-`."""
    if variant is not None and not (isinstance(variant, str) and NAME.fullmatch(variant)):
        raise ValueError(f"variant is {variant!r:.60}; expected letters, digits, _ and -, as fp16")


def check_settings(content: dict, kind: type, known: Iterable[str], name: str) -> None:
    """Raises ValueError for a setting in config.json that loads code or shadows an attribute of
    `kind`.

    `known` are the legitimate settings of `kind`. Any other name that `kind` has as an attribute is
    refused, because transformers would replace the attribute by the value from the file.
    """
    known = {*known, *LOADING}
    for key, value in content.items():
        plain, shown = check_setting(key, value, name)
        hides = not {plain, key} & known and hasattr(kind, key)
        if hides or key.startswith("__"):
            raise ValueError(f"{shown}, which is not taken from a file; remove it")


def check_setting(key: str, value, place: str) -> tuple[str, str]:
    """Raises ValueError for a setting that loads code or files, or names no dtype.

    Returns the setting's plain name, and the beginning of an error on it.
    """
    shown = f"{place} holds {printable(repr(key), 60)}"
    plain = key.removeprefix("_").removesuffix("_internal")
    if plain in LOADING and value not in HARMLESS:
        raise ValueError(f"{shown}, which is not taken from a file; remove it")
    if plain in ("dtype", "torch_dtype") and not is_dtype(value):
        raise ValueError(f"{shown} {value!r:.60}; expected a name such as 'float32'")
    return plain, shown


def is_dtype(value) -> bool:
    """Returns whether the value is None, "auto", a torch.dtype or its name, as "float16"."""
    if isinstance(value, str):
        value = getattr(torch, value.removeprefix("torch."), value)
    return value is None or value == "auto" or isinstance(value, torch.dtype)


def weight_files(folder: Path) -> list[Path]:
    """Returns the safetensors files that the folder's index names, or all of them without an index.

    Raises ValueError if the folder holds a LoRA adapter, or if the index names files outside the
    folder or files that are missing.
    """
    if (folder / "adapter_config.json").exists():
        raise ValueError(
            f"{str(folder)!r} holds an adapter (adapter_config.json); merge it, or remove it"
        )
    for path in folder.glob("*.safetensors.index.json"):
        index = read_object(path, "index_bytes")
        names = index.get("weight_map")
        if not names or not isinstance(names, dict) or not isinstance(index.get("metadata"), dict):
            raise ValueError(f"{str(path)!r} holds no weight_map and metadata; download it again")
        for name in sorted(set(map(str, names.values()))):
            if not name.endswith(".safetensors") or Path(name).name != name:
                raise ValueError(
                    f"{str(path)!r} names {printable(name, 80)!r}; expected safetensors files "
                    "of its folder"
                )
            if not (folder / name).is_file():
                raise ValueError(
                    f"{str(folder)!r} lacks {printable(name, 80)}, which {path.name} lists; "
                    "download the model again"
                )
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise ValueError(f"{str(folder)!r} holds no .safetensors file; download the weights")
    return found


@contextmanager
def one_layout(folder: Path, stem: str, variant: str | None = None) -> Iterator[None]:
    """A context in which weights named `stem` are saved; it removes what an older save left in the
    other layout.

    The two layouts are one file, or shards with an index. Readers prefer a single file to shards
    and trust an index before its files, so a leftover of the other layout would be read in place of
    the new weights.
    """
    single, index = _places(folder, variant, stem)
    before = index.stat().st_mtime_ns if index.exists() else None
    yield
    sharded = index.exists() and index.stat().st_mtime_ns != before
    (single if sharded else index).unlink(missing_ok=True)
    for path in folder.glob(f"{stem}.safetensors.index*.json"):
        names = set(read_object(path, "index_bytes").get("weight_map", {}).values())
        if not all((folder / name).is_file() for name in names):
            path.unlink()


def check_variant(folder: Path, variant: str | None) -> None:
    """Raises ValueError if the folder has a model's weights but none of that variant."""
    names = [path.name.removeprefix("model") for path in folder.glob("model*.safetensors")]
    found = {match["variant"] for match in map(VARIANT.fullmatch, names) if match}
    if names and variant not in found:
        others = ", ".join(sorted(map(repr, found - {None}))) or "none"
        asked = f"variant {variant!r}" if variant else "weights without a variant"
        raise ValueError(f"{str(folder)!r} holds no {asked}; its variants are {others}")


def chosen_files(folder: Path, variant: str | None, stem: str) -> list[Path]:
    """Returns the files of the weights named `stem` in a variant: a single file, or its shards."""
    single, index = _places(folder, variant, stem)
    if single.is_file():
        return [single]
    names = read_object(index, "index_bytes")["weight_map"].values()
    return [folder / name for name in sorted(set(names))]


def _places(folder: Path, variant: str | None, stem: str) -> tuple[Path, Path]:
    """Returns the paths of a single file of weights and of the index of their shards."""
    kind = f".{variant}" if variant else ""
    return folder / f"{stem}{kind}.safetensors", folder / f"{stem}.safetensors.index{kind}.json"


def stored(folder: Path) -> int:
    """Returns how many numbers the folder's weight files hold, from their headers.

    Raises ValueError for a damaged or truncated file, and for integer weights, which would be
    converted to floating point silently.
    """
    return sum(map(_numbers, weight_files(folder)))


def _numbers(path: Path) -> int:
    with explained(
        f"{path} is a damaged weight file", "download or save it again", SafetensorError, OSError
    ):
        with safe_open(check_file(path), "pt") as file:
            parts = {key: file.get_slice(key) for key in file.keys()}
            kinds = {key: part.get_dtype() for key, part in parts.items()}
            count = sum(math.prod(part.get_shape()) for part in parts.values())
    wrong = [
        key
        for key, kind in kinds.items()
        if not kind.startswith(("F", "BF")) and not key.endswith(COUNTERS)
    ]
    if wrong:
        shown = printable(wrong[0], 80)
        raise ValueError(
            f"{shown} in {path} is of {kinds[wrong[0]]}, expected floating-point numbers"
        )
    return count


def check_size(parameters: int, folder: Path) -> None:
    """Raises ValueError if a configuration describes many more parameters than its weight files
    hold.

    The limit "parameters" applies as well. Otherwise missing tensors would be allocated before
    anyone notices.
    """
    limits.hold("parameters", parameters, f"{str(folder)!r} describes {parameters:,} parameters")
    held = stored(folder)
    if held and parameters > 2 * held + SLACK:
        raise ValueError(
            f"config.json in {str(folder)!r} describes {parameters:,} parameters, its weight files "
            f"hold {held:,}; take both from one checkpoint"
        )
