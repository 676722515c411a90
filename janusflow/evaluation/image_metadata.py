"""Reads from images how they were generated: the text chunks of a PNG, and nothing else."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

UNKNOWN = "unknown"
MANY = 4  # different values that are listed


def origins(paths: Sequence[Path], names: Sequence[str]) -> dict[str, str]:
    """Returns for each name the value in the images' metadata: one, several, or "unknown".

    `janusflow generate` and `evaluate` write this metadata. An image without it counts as unknown.
    """
    texts = [_text(path) for path in paths]
    return {name: _joint([text.get(name, UNKNOWN) for text in texts]) for name in names}


def _text(path: Path) -> dict[str, str]:
    """Returns the text chunks of a PNG; none for other formats and for unreadable files."""
    try:
        with Image.open(path) as image:
            found = getattr(image, "text", {})
    except (OSError, SyntaxError, ValueError):
        return {}
    return {str(name): str(value)[:200] for name, value in found.items()}


def _joint(values: Sequence[str]) -> str:
    kinds = list(dict.fromkeys(values))
    if len(kinds) == 1:
        return kinds[0]
    shown = ", ".join(kinds[:MANY])
    return f"{len(kinds)} different: {shown}{', ...' if len(kinds) > MANY else ''}"
