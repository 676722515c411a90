"""Parses captions back to objects."""

from __future__ import annotations

import re
from functools import lru_cache

from janusflow.scenes.world import COLORS, SHAPES, Need


@lru_cache
def _phrases() -> dict[str, Need]:
    """Returns every noun phrase, such as "a circle", "an orange ring" or "two red crosses"."""
    needs = [Need(s, c, n) for s in SHAPES for c in (None, *COLORS) for n in range(1, 5)]
    return {need.phrase: need for need in needs}


def parse(text: str) -> list[Need] | None:
    """Returns the objects that a caption names, in its order; None for a text that is not a
    caption.

    Captions are phrases joined by commas and "and", as `describe` writes them. Prompts without a
    relation have the same form.
    """
    words = " ".join(re.findall(r"[a-z]+|,", text.lower()))
    needs = [_phrases().get(part) for part in re.split(r" , | and ", words)]
    return needs if all(needs) else None
