"""Which image belongs to which place of which conversation."""

from __future__ import annotations

from janusflow.models.janusflow.chat_format import Turn, as_images


def nested(images, batch: int) -> list | None:
    """Returns None, a flat list of images for the batch, or one list of images per row."""
    if images is None:
        return None
    images = list(as_images(images))
    if any(one is None for one in images):
        raise ValueError(
            f"image {images.index(None) + 1} of {len(images)} is None; give an image, or [] for a "
            "conversation without one"
        )
    if any(isinstance(one, list | tuple) for one in images):
        if len(images) != batch:
            raise ValueError(
                f"{len(images)} lists of images came for {batch} conversations; give one for each, "
                "[] for none"
            )
        return [list(as_images(one)) for one in images]
    return [images] if batch == 1 else images


def inline(turns: list[Turn]) -> tuple:
    return tuple(image for turn in turns for image in turn.images)


def mismatch(count: int, places: int, tag: str) -> str:
    return f"{count} images came for {places} placeholders {tag!r}; give as many of both"
