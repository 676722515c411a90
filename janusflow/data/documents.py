"""Interleaved documents: texts and images in reading order. The texts are learnt."""

from collections.abc import Mapping
from typing import Any

PARTS = ("content", "document", "interleaved")  # a list of texts and images
PLACEHOLDER = "<image>"  # LLaVA's, in texts


def parts_of(row: Mapping) -> list[tuple[str | None, Any]] | None:
    """Returns the document's parts, (text, None) or (None, image), in reading order; None for
    another row.

    A row is a document if it has one of these: a list of parts as in chat templates; lists of equal
    length under "texts" and "images" with null where the other has a value; or images whose places
    in "text" are marked `<image>`. Raises ValueError for a part that is neither text nor image.
    """
    for key in PARTS:
        if isinstance(row.get(key), list | tuple) and row[key]:
            return [_part(part) for part in row[key]]
    texts, images = row.get("texts"), row.get("images")
    if isinstance(texts, list | tuple) and isinstance(images, list | tuple):
        if len(texts) != len(images):
            raise ValueError(
                f"it has {len(texts)} texts and {len(images)} images; expected as many, with a "
                "null where the other stands"
            )
        pairs = zip(texts, images, strict=True)
        return [part for t, i in pairs for part in ((t, None), (None, i)) if part != (None, None)]
    text = row.get("text")
    if isinstance(text, str) and PLACEHOLDER in text:
        return _placed(text, row)
    return None


def _placed(text: str, row: Mapping) -> list[tuple[str | None, Any]] | None:
    images = row.get("images", row.get("image"))
    if images is None:
        return None
    images = list(images) if isinstance(images, list | tuple) else [images]
    pieces = text.split(PLACEHOLDER)
    if len(pieces) != len(images) + 1:
        raise ValueError(
            f"it has {len(images)} images for {len(pieces) - 1} {PLACEHOLDER}; give as many"
        )
    pairs = zip(pieces, [*images, None], strict=True)
    return [part for t, i in pairs for part in ((t or None, None), (None, i)) if any(part)]


def image_of(part: Mapping) -> Any:
    """Returns the image of a part of a document or message, or None if it is missing or empty."""
    found = (part.get(key) for key in ("image", "image_url", "path", "url"))
    given = next((x for x in found if x is not None and not _empty(x)), None)
    return given["url"] if isinstance(given, Mapping) and "url" in given else given


def _empty(given: Any) -> bool:
    """Returns whether a text, bytes or a mapping is empty; an array has no truth value."""
    return isinstance(given, str | bytes | Mapping) and not given


def _part(part: Any) -> tuple[str | None, Any]:
    if isinstance(part, str):
        return part, None
    if isinstance(part, Mapping) and part.get("text") is not None:
        return part["text"], None
    if isinstance(part, Mapping) and (image := image_of(part)) is not None:
        return None, image
    raise ValueError(f"a part of a document is {part!r:.60}; expected a text or an image")
