"""What images of others say of themselves: the text that a PNG carries, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

UNKNOWN = "unknown"
MANY = 4  # different values that are listed


def origins(paths: Sequence[Path], names: Sequence[str]) -> dict[str, str]:
    """For each name the value that the images' own text gives: one, several, or "unknown".

    The text is what `janusflow generate` and `evaluate` write into a PNG. An image without it
    counts as one of unknown origin.
    """
    texts = [_text(path) for path in paths]
    return {name: _joint([text.get(name, UNKNOWN) for text in texts]) for name in names}


def _text(path: Path) -> dict[str, str]:
    """The text chunks of a PNG; none for other formats and for files that cannot be opened."""
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
