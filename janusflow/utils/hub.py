"""Where a model's files come from: the package itself, a folder, or the hub."""

from __future__ import annotations

from pathlib import Path

from janusflow.utils import digests
from janusflow.utils.keywords import refuse_unknown
from janusflow.utils.safe_io import read_text

WEIGHTS = Path(__file__).parent.parent / "weights"
PACKAGED = {
    "janusflow/scenes": WEIGHTS / "scenes",
    "janusflow/scenes-pro": WEIGHTS / "scenes-pro",
}
DEFAULT = "janusflow/scenes"
SUMS = "SHA256SUMS"
FLOW_MAP = "flow-map.json"  # beside weights: the times between which a flow map was trained
FILES = [
    "*.json",
    "*.safetensors",
    "vae/*.json",
    "vae/*.safetensors",
    SUMS,
]  # never code, never pickles


# of huggingface_hub's `snapshot_download`; `subfolder` is a folder inside the named one
KEYWORDS = ("subfolder", "revision", "cache_dir", "token", "local_files_only", "force_download")


def locate(
    name: str | Path, files: list[str] = FILES, *, subfolder: str | None = None, **hub
) -> Path:
    """The folder that holds `name`: a packaged model, a local folder, or a snapshot of a hub id;
    with `subfolder` the folder of that name inside it.

    From the hub come only `files` (patterns); `hub` goes to huggingface_hub's
    `snapshot_download` (`KEYWORDS`). Raises ValueError if there is no such folder and the hub
    cannot provide it, TypeError for a keyword that nothing takes.
    """
    refuse_unknown("loading", hub, KEYWORDS)
    inside = _inside(subfolder)
    if str(name) in PACKAGED or _is_folder(name):
        folder = PACKAGED.get(str(name)) or Path(name)
        if hub.get("revision") is not None:
            raise ValueError(
                f"revision {hub['revision']!r:.80} is of a hub repository, and {str(name)!r:.200} "
                "is a folder here; leave it out"
            )
    else:
        given = {key: value for key, value in hub.items() if value is not None}
        folder = Path(_download(str(name), [str(inside / file) for file in files], given))
    verify(folder)
    if inside == Path():
        return folder
    if not (folder / inside).is_dir():
        raise ValueError(f"{str(name)!r:.200} holds no folder {str(inside)!r:.200}")
    verify(folder / inside)
    return folder / inside


def _inside(subfolder: str | None) -> Path:
    """A path below the folder that is named; ValueError for one that leads out of it."""
    path = Path(subfolder or "")
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"subfolder {str(subfolder)!r:.200} leads out of the model's folder")
    return path


def _is_folder(name: str | Path) -> bool:
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):  # too long for a name, or a NUL in it
        return False


def verify(folder: Path) -> None:
    """Compares the folder's files with its SHA256SUMS, where it has one.

    ValueError names the first file that was changed. `sha256sum -c SHA256SUMS` does
    the same by hand, and `sha256sum model.safetensors vae/*.safetensors > SHA256SUMS` writes it.
    """
    if not (folder / SUMS).exists():
        return
    for line in read_text(folder / SUMS, "config_bytes").splitlines():
        digest, _, name = line.partition("  ")
        if Path(name).is_absolute() or ".." in Path(name).parts or len(digest) != 64:
            raise ValueError(f"{SUMS} in {str(folder)!r} is malformed at {line!r:.60}; remove it")
        if (folder / name).is_file() and digests.of_file(folder / name) != digest:
            raise ValueError(
                f"{name} in {str(folder)!r} is not the file that {SUMS} tells of; install or fetch "
                "it again, or remove the list if the change is yours"
            )


def _download(name: str, files: list[str], hub: dict) -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    known = ", ".join(PACKAGED)
    try:
        return snapshot_download(name, allow_patterns=files, **hub)
    except HFValidationError:
        problem = "is neither a folder nor the form of a hub id"
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).split("\n")[0].strip().rstrip(".:")
        problem = f"is no folder here and could not be taken from the hub ({reason[:160]})"
    raise ValueError(
        f"model {name!r:.200} {problem}; give a folder, a hub id such as "
        f"deepseek-ai/JanusFlow-1.3B, or {known}"
    )
