"""Records which weights, evaluator and library versions a score came from."""

from importlib import metadata
from pathlib import Path

from janusflow.utils.digests import of_bytes
from janusflow.utils.digests import of_file as sha256

# Raised when a score changes: the scorer, the scenes or the questions. Reports of release 0.1 name
# a hash of those files instead; 2a2304624660b367 is version 1.
EVALUATOR_VERSION = 1
PACKAGES = ("torch", "diffusers", "transformers", "numpy", "scipy", "pillow")


def digest(content) -> str:
    """Returns the SHA-256 of a buffer."""
    return of_bytes(memoryview(content.numpy()))


def weights(folder: Path, vae: Path | None = None, lora: Path | None = None) -> dict[str, str]:
    """Returns all weight files' SHA-256, as of `sha256sum`. Raises ValueError without files."""
    found = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    files = {path.name: path for path in found}
    if not files:
        raise ValueError(f"{str(folder)!r} holds no *.safetensors; name a model's folder")
    for path in sorted((vae or folder / "vae").glob("*.safetensors")):
        files[f"vae/{path.name}"] = path
    for path in _adapter(lora) if lora else ():
        files[f"lora/{path.name}"] = path
    return {name: sha256(path) for name, path in files.items()}


def _adapter(place: Path) -> list[Path]:
    """Returns the files of an adapter, a folder or a weight file beside its configuration."""
    if place.is_dir():
        return sorted(place.glob("adapter_*"))
    return [place.with_name("adapter_config.json"), place]


def fingerprint(digests: dict[str, str]) -> str:
    """Returns sixteen digits of the SHA-256 of the lines `digest name`, sorted by name."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return of_bytes(lines)[:16]


def evaluator() -> str:
    """Returns the version by which reports and stored images are compared."""
    return f"janusflow.scenes {EVALUATOR_VERSION}"


def version(package: str) -> str:
    return metadata.version(package)


def versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in PACKAGES}
