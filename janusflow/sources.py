"""Where a model's files come from: the package itself, a folder, or the hub."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
PACKAGED = {
    "janusflow/scenes": WEIGHTS / "scenes",
    "janusflow/scenes-pro": WEIGHTS / "scenes-pro",
}
DEFAULT = "janusflow/scenes"
FILES = ["*.json", "*.safetensors", "vae/*.json", "vae/*.safetensors"]  # never code, never pickles


def locate(name: str | Path, files: list[str] = FILES, **hub) -> Path:
    """The folder that holds `name`: a packaged model, a local folder, or a snapshot of a hub id.

    From the hub come only `files` (patterns); `hub` goes to huggingface_hub's
    `snapshot_download` (revision, cache_dir, local_files_only, token). Raises ValueError if there
    is no such folder and the hub cannot provide it.
    """
    if str(name) in PACKAGED:
        return PACKAGED[str(name)]
    if Path(name).is_dir():
        return Path(name)
    return Path(_download(str(name), files, hub))


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
        f"model {name!r} {problem}; give a folder, a hub id such as deepseek-ai/JanusFlow-1.3B, "
        f"or {known}"
    )
