"""Sizes of images from their headers: too small ones are refused, unusual ones are counted."""

import io
from collections.abc import Iterable, Iterator

from PIL import Image

from janusflow.data.records import Record

MIN_SIDE = 8  # pixels; below are placeholders of web pages, not images
SHOWN = 0.5  # of an image's area; where less is shown the report says so


def size_of(content: bytes) -> tuple[int, int] | None:
    """Returns (width, height) of an image as it is shown, or None if its header cannot be read."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            turned = image.getexif().get(274, 1) >= 5  # lies on its side
            return image.size[::-1] if turned else image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def check_sides(record: Record, least: int) -> None:
    """Raises ValueError for an image of a record with a side of fewer than `least` pixels."""
    for content in (*record.images, *record.shown):
        found = size_of(content)
        if found is not None and min(found) < least:
            raise ValueError(
                f"its image is {found[0]} x {found[1]}; each side needs at least {least} pixels "
                "(data.min_side)"
            )


def unusual(records: Iterable[Record], height: int, width: int, least: int) -> Iterator[str]:
    """Yields sentences about images that are too small, enlarged, or mostly cropped away, if they
    are generated at this size, each with the count and an example.
    """
    found: dict[str, list[str]] = {}
    looked = 0
    for record in records:
        size = size_of(record.images[0]) if record.images else None
        looked += size is not None
        for why in () if size is None else _reasons(*size, height, width, least):
            found.setdefault(why, []).append(f"{record.name}, {size[0]} x {size[1]}")
    for why, names in found.items():
        yield f"{len(names)} of {looked} images looked at {why}, as {names[0]}"


def _reasons(w: int, h: int, height: int, width: int, least: int) -> Iterator[str]:
    if min(w, h) < least:
        yield f"have a side of fewer than {least} pixels and are skipped (data.min_side)"
        return
    if max(width / w, height / h) > 1:
        yield f"are enlarged to {width} x {height}"
    ratios = sorted((w / h, width / height))
    if ratios[0] / ratios[1] < SHOWN:
        yield "are cropped to less than half of their area"
