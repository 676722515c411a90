"""Parses captions and prompts back to objects."""

import re
from functools import lru_cache

from janusflow.scenes.world import COLORS, FRAMES, RELATIONS, SHAPES, Need, Prompt


@lru_cache
def _phrases() -> dict[str, Need]:
    """Returns every noun phrase, such as "a circle", "an orange ring" or "two red crosses"."""
    needs = [Need(s, c, n) for s in SHAPES for c in (None, *COLORS) for n in range(1, 5)]
    return {need.phrase: need for need in needs}


def _words(text: str) -> str:
    return " ".join(re.findall(r"[a-z]+|,", text.lower()))


def parse(text: str) -> list[Need] | None:
    """Returns the objects that a caption names, in its order; None for a text that is not a
    caption.

    Captions are phrases joined by commas and "and", as `describe` writes them. Prompts without a
    relation have the same form.
    """
    words = _words(text)
    needs = [_phrases().get(part) for part in re.split(r" , | and ", words)]
    return needs if all(needs) else None


@lru_cache
def _openings() -> list[str]:
    """Returns what may stand before a prompt's phrases, such as "a picture of ", longest first."""
    frames = {frame for frames in FRAMES.values() for frame in frames}
    found = {frame.format("", verb=verb) for frame in frames for verb in ("is", "are")}
    return sorted(found, key=len, reverse=True)


def parse_prompt(text: str) -> Prompt | None:
    """Returns what a prompt of the small world asks for; None for any other text."""
    words = _words(text)
    words = words.removeprefix(next(o for o in _openings() if words.startswith(o)))
    relation = next((name for name in RELATIONS if f" {name} " in words), None)
    parts = words.split(f" {relation} ") if relation else [words]
    needs = [parse(part) for part in parts]
    if len(parts) > 2 or not all(needs) or (relation and any(len(n) > 1 for n in needs)):
        return None
    return Prompt(text, "", tuple(need for part in needs for need in part), relation)
