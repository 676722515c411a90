"""Finds a model's files: in the package, in a local folder, or on the Hugging Face hub."""

import re
from collections.abc import Sequence
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

from janusflow.utils import atomic_io, digests
from janusflow.utils.keywords import refuse_unknown
from janusflow.utils.packaged import PACKAGED as PACKAGED
from janusflow.utils.packaged import WEIGHTS as WEIGHTS
from janusflow.utils.safe_io import read_text
from janusflow.utils.text import printable

SUMS = "SHA256SUMS"
REFLOW = "reflow.json"  # beside weights: how often the model was reflowed
FEW_STEP = "few-step.json"  # beside weights: which flow map generates a quality
FLOW_MAP = "flow-map.json"  # beside weights: the times between which a flow map was trained
DIGEST = re.compile("[0-9a-f]{64}")
OBEYED = ("*.json", "*.safetensors", "*.bin", "*.jinja")  # what a list has to tell of
CONFIGS = ["config.json", "vae/config.json"]  # what describes a model without its weights


def files_of(variant: str | None = None) -> list[str]:
    """Returns the file patterns of a JanusFlow: no code, no pickles, and no second copy of the
    weights.

    `variant` is part of the weight files' names, as "fp16" in model.fp16.safetensors.
    """
    own = f".{variant}" if variant else ""
    vae = "vae/diffusion_pytorch_model"
    weights = [f"model{own}.safetensors", f"model{own}-*-of-*.safetensors"]
    weights += [f"model-*-of-*{own}.safetensors"] * bool(variant)
    autoencoder = [f"{vae}.safetensors"] + [f"{vae}{own}.safetensors"] * bool(variant)
    return ["*.json", "*.jinja", *weights, "vae/config.json", *autoencoder]


FILES = files_of()
AUTOENCODER = [
    "config.json",
    "diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
]
# of huggingface_hub's `snapshot_download`; `subfolder` is a folder inside the named one
KEYWORDS = ("subfolder", "revision", "cache_dir", "token", "local_files_only", "force_download")
# of transformers' `push_to_hub`, which saving takes too
PUSHING = ("repo_id", "commit_message", "private", "create_pr", "revision", "token")


def locate(
    name: str | Path, files: Sequence[str] = FILES, *, subfolder: str | None = None, **hub
) -> Path:
    """Returns the folder of `name`: a packaged model, a local folder, or a snapshot of a hub id.

    With `subfolder` it is that folder inside it. Only `files` (patterns) are downloaded;
    "org/name@REVISION" pins a revision, and `hub` holds keywords of huggingface_hub's
    `snapshot_download`. Raises ValueError if there is no such folder and the hub cannot provide it,
    or if files differ from SHA256SUMS, and TypeError for an unknown keyword.
    """
    refuse_unknown("loading", hub, KEYWORDS)
    if not isinstance(name, str | Path) or not str(name).strip() or name == Path():
        raise ValueError(
            f"the model's name is {printable(repr(name), 80)}; expected a folder, a hub id such as "
            f"deepseek-ai/JanusFlow-1.3B, or {', '.join(PACKAGED)}"
        )
    inside = _inside(subfolder)
    if is_file(name):
        raise ValueError(f"{str(name)!r:.200} is a file; name the folder that holds it")
    if str(name) in PACKAGED or _is_folder(name):
        folder = PACKAGED.get(str(name)) or Path(name)
        if hub.get("revision") is not None:
            raise ValueError(
                f"revision {hub['revision']!r:.80} is of a hub repository, and {str(name)!r:.200} "
                "is a folder here; leave it out"
            )
    else:
        given = {key: value for key, value in hub.items() if value is not None}
        folder = Path(_download(str(name), [str(inside / file) for file in (*files, SUMS)], given))
    verify(folder, [str(inside / file) for file in files])
    if inside == Path():
        return folder
    if not (folder / inside).is_dir():
        raise ValueError(
            f"{str(name)!r:.200} holds no folder {str(inside)!r:.200}; check subfolder"
        )
    verify(folder / inside, files)
    return folder / inside


def _inside(subfolder: str | None) -> Path:
    """Returns a path below the folder. Raises ValueError for one that leads out of it."""
    if not isinstance(subfolder, str | Path | None):
        raise ValueError(f"subfolder is {subfolder!r:.60}; expected the name of a folder")
    path = Path(subfolder or "")
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(
            f"subfolder {str(subfolder)!r:.200} leads out of the model's folder; name a folder "
            "inside it"
        )
    return path


def _is_folder(name: str | Path) -> bool:
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):  # too long for a name, or a NUL in it
        return False


def is_file(name: str | Path) -> bool:
    """Returns whether a file has this name, which may be too long for one or hold a NUL."""
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False


def verify(folder: Path, files: Sequence[str] = FILES) -> None:
    """Checks a folder against its SHA256SUMS, if it has one; `sha256sum -c SHA256SUMS` does the
    same by hand.

    Raises ValueError naming the first file that was changed, that is missing although it is one of
    `files`, or that was added and would be read. `relist` writes the list.
    """
    if not (folder / SUMS).exists():
        return
    listed = _listed(folder)
    for name, digest in listed.items():
        path = folder / name
        if not any(fnmatch(name, pattern) for pattern in files):
            continue
        if not path.is_file():
            raise ValueError(
                f"{name} is listed in {SUMS} and missing in {str(folder)!r}; install or download "
                "it again, or remove the list if the change is yours"
            )
        if _digest(path) != digest:
            raise ValueError(
                f"{name} in {str(folder)!r} differs from the file that {SUMS} lists; install or "
                "download it again, or remove the list if the change is yours"
            )
    kinds = set(map(_kind, listed))
    others = set(_obeyed(folder)) - set(listed)
    if added := sorted(n for n in others if _kind(n) in kinds or n.startswith("pilot-")):
        raise ValueError(
            f"{printable(added[0], 80)} in {str(folder)!r} is not in its {SUMS}; remove the file, "
            "or the list if the change is yours"
        )


def _kind(name: str) -> tuple[str, str]:
    """Returns folder and suffix of a file."""
    return Path(name).parent.as_posix(), Path(name).suffix


def unlist(folder: Path) -> None:
    """Removes the folder's SHA256SUMS, because its files were written anew."""
    (folder / SUMS).unlink(missing_ok=True)


def relist(folder: Path) -> None:
    """Rewrites the folder's SHA256SUMS, if it has one, after its files were changed."""
    if (folder / SUMS).exists():
        lines = [f"{digests.of_file(folder / name)}  {name}\n" for name in sorted(_obeyed(folder))]
        atomic_io.write_text(folder / SUMS, "".join(lines))


def _listed(folder: Path) -> dict[str, str]:
    """Returns digests by name. Raises ValueError for an invalid list or outside path."""
    listed = {}
    for line in read_text(folder / SUMS, "config_bytes").splitlines():
        digest, _, name = line.partition("  ")
        plain = not Path(name).is_absolute() and ".." not in Path(name).parts and name
        if not plain or not DIGEST.fullmatch(digest):
            shown = printable(repr(line), 60)
            raise ValueError(f"{SUMS} in {str(folder)!r} is malformed at {shown}; remove it")
        listed[name] = digest
    return listed


def _obeyed(folder: Path) -> list[str]:
    """Yields the files of a model folder and its `vae/` that some reader would use."""
    paths = (p for part in (folder, folder / "vae") for p in part.glob("*") if p.is_file())
    names = (p.relative_to(folder).as_posix() for p in paths)
    return [n for n in names if any(fnmatch(n, pattern) for pattern in OBEYED)]


def _digest(path: Path) -> str:
    """Returns a file's digest, computed again only if its size or date changes."""
    found = path.stat()
    return _digest_of(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest_of(path: Path, _size: int, _date: int) -> str:
    return digests.of_file(path)


def _download(name: str, files: list[str], hub: dict) -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    plain, _, revision = name.partition("@")
    hub = hub | ({"revision": revision} if revision else {})
    known = ", ".join(PACKAGED)
    try:
        safe = [pattern for pattern in files if pattern != "*.bin"]
        folder = snapshot_download(plain, allow_patterns=safe, **hub)
        if safe != files and not any(Path(folder).glob("*.safetensors")):
            folder = snapshot_download(plain, allow_patterns=files, **hub)
        return folder
    except HFValidationError:
        problem = "is neither a folder nor the form of a hub id"
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = printable(str(error).split("\n")[0].strip().rstrip(".:"), 160)
        problem = f"is no folder here and could not be taken from the hub ({reason})"
    raise ValueError(
        f"model {printable(name, 80)!r} {problem}; give a folder, a hub id such as "
        f"deepseek-ai/JanusFlow-1.3B, or {known}"
    )
