"""A cache on disk of latents and teacher features, indexed by the content of the image files.

A cache is a folder. `cache.json` records the settings it was made with; each `*.safetensors` file
holds tensors of some images under the SHA-256 of their files, each with a checksum. So a modified
image is not found, a moved one is, and files are either complete or absent.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from janusflow.utils import atomic_io, digests
from janusflow.utils.safe_io import check_file, read_object
from janusflow.utils.text import printable

ABOUT = "cache.json"
FORMAT = 1
OPEN = 64  # shards kept open
AGAIN = "run janusflow precompute again"


class CacheError(OSError):
    """A cache does not fit or is damaged. Unlike a broken sample, it stops the run."""


def key_of(image: bytes) -> str:
    """Returns an image's key in the cache: the SHA-256 of its file."""
    return digests.of_bytes(image)[:32]


class Cache:
    """A folder of cached tensors. `about` holds the settings that it was made with."""

    def __init__(self, folder: Path, about: Mapping):
        self.folder, self.about = folder, dict(about)
        self.places: dict[str, Path] = {}
        self.sums: dict[str, dict[str, str]] = {}
        self._files: OrderedDict[Path, safe_open] = OrderedDict()
        for path in sorted(folder.glob("*.safetensors")):
            self._enter(path)

    @classmethod
    def create(cls, folder: Path, about: Mapping) -> Cache:
        """Creates a cache, or opens it. Raises CacheError if it has other settings."""
        if (folder / ABOUT).exists():
            found = _read_about(folder)
            if wrong := first_difference(found, about):
                raise CacheError(
                    f"{folder} is a cache of another kind ({wrong}); choose another folder"
                )
            return cls(folder, found | {"data": None})
        atomic_io.make_folder(folder)
        made = cls(folder, {**about, "data": None})
        made.declare(None)
        return made

    @classmethod
    def open(cls, folder: str | Path, about: Mapping, data: str) -> Cache:
        """Opens a finished cache for training; `data` is the signature of the data files.

        Raises CacheError if there is none, or if it was made with other settings or data.
        """
        folder = Path(folder)
        if not (folder / ABOUT).is_file():
            raise CacheError(f"{folder} holds no {ABOUT}; make a cache with janusflow precompute")
        found = _read_about(folder)
        if wrong := first_difference(found, about):
            raise CacheError(f"the cache in {folder} is stale: {wrong}; {AGAIN}, to another folder")
        if found.get("data") is None:
            raise CacheError(f"the cache in {folder} was not finished; {AGAIN}")
        if found["data"] != data:
            raise CacheError(
                f"the cache in {folder} is stale: files of the data were added, removed or "
                f"changed; {AGAIN}, which computes what is new"
            )
        return cls(folder, found)

    def declare(self, data: str | None) -> None:
        """Writes `cache.json`; `data` is the signature of the data files once all are cached."""
        self.about["data"] = data
        plain = json.dumps(self.about, sort_keys=True)
        said = {"sha256": digests.of_bytes(plain), **self.about}
        atomic_io.write_text(self.folder / ABOUT, json.dumps(said, indent=1))

    def __contains__(self, key: str) -> bool:
        return key in self.places

    def __len__(self) -> int:
        return len(self.places)

    def add(self, images: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Writes one shard: for each key its tensors by name, such as "latents" and "features"."""
        tensors, sums = {}, {}
        for key, own in images.items():
            own = atomic_io.on_cpu(own)
            sums[key] = {name: self._sum(key, name, tensor) for name, tensor in own.items()}
            tensors |= {f"{key}.{name}": tensor for name, tensor in own.items()}
        path = self.folder / f"{next(iter(images))}.safetensors"
        try:
            atomic_io.write_tensors(path, tensors, {"sums": json.dumps(sums)})
        except OSError as error:
            reason = error.__cause__ or error
            raise CacheError(f"{path} cannot be written ({reason}); free some space") from error
        self._enter(path)

    def get(self, key: str, names: Sequence[str]) -> dict[str, Tensor]:
        """Returns an image's tensors of these names. Raises CacheError if the checksum differs."""
        path = self.places[key]
        try:
            file = self._open(path)
            own = {name: file.get_tensor(f"{key}.{name}") for name in names}
        except (SafetensorError, OSError) as error:
            raise _damaged(path, error) from error
        for name, tensor in own.items():
            if self._sum(key, name, tensor) != self.sums[key].get(name):
                raise _damaged(path, f"{name} of image {key} do not match their checksum")
        return own

    def _sum(self, key: str, name: str, tensor: Tensor) -> str:
        """Returns a checksum with the cache's settings, so that no other cache's shard fits."""
        salt = {name: value for name, value in self.about.items() if name != "data"}
        return digests.of_tensors({name: tensor}, key + json.dumps(salt, sort_keys=True))

    def _enter(self, path: Path) -> None:
        try:
            sums = json.loads((self._open(path).metadata() or {})["sums"])
            sums = {str(key): dict(value) for key, value in sums.items()}
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _damaged(path, error) from error
        self.sums |= sums
        self.places |= dict.fromkeys(sums, path)

    def _open(self, path: Path) -> safe_open:
        if path in self._files:
            self._files.move_to_end(path)
            return self._files[path]
        while len(self._files) >= OPEN:
            self._files.popitem(last=False)
        self._files[path] = safe_open(check_file(path), "pt")
        return self._files[path]


def first_difference(found: Mapping, wanted: Mapping) -> str | None:
    """Returns a sentence about the first of the `wanted` settings that differs, or None."""
    for name, value in wanted.items():
        theirs = found.get(name)
        if isinstance(value, Mapping) and isinstance(theirs, Mapping):
            if inner := first_difference(theirs, value):
                return f"{name}' {inner}"
        elif theirs != value:
            return f"{name} is {_short(theirs)} there, {_short(value)} here"
    return None


def _short(value) -> str:
    return f"{value!r:.24}"


def _read_about(folder: Path) -> dict:
    try:
        found = read_object(folder / ABOUT)
    except ValueError as error:
        raise _damaged(folder / ABOUT, error) from error
    theirs = found.pop("sha256", None)
    plain = json.dumps(found, sort_keys=True)
    if theirs != digests.of_bytes(plain):
        raise _damaged(folder / ABOUT, "it does not match its checksum")
    return found


def _damaged(path: Path, why) -> CacheError:
    reason = printable(why, 160)
    return CacheError(f"{path} is damaged ({reason}); delete it and {AGAIN}")
