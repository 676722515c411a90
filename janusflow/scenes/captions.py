"""The grammar of captions, read backwards."""

from __future__ import annotations

import re
from functools import lru_cache

from janusflow.scenes.world import COLORS, SHAPES, Need


@lru_cache
def _phrases() -> dict[str, Need]:
    """Every noun phrase: "a circle", "an orange ring", "two red crosses"."""
    needs = [Need(s, c, n) for s in SHAPES for c in (None, *COLORS) for n in range(1, 5)]
    return {need.phrase: need for need in needs}


def parse(text: str) -> list[Need] | None:
    """What a caption says there is, in its order; None for what is no caption.

    Captions are phrases joined by commas and "and": `describe` writes them, and so do the prompts
    that name neither a relation nor the image itself.
    """
    words = " ".join(re.findall(r"[a-z]+|,", text.lower()))
    needs = [_phrases().get(part) for part in re.split(r" , | and ", words)]
    return needs if all(needs) else None
