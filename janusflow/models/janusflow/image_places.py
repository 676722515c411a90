"""Which image belongs to which place of which conversation."""

import re
import warnings
from dataclasses import replace

from janusflow.models.janusflow.chat_format import Turn, as_images

OURS = "<image>"  # LLaVA's way to write where an image stands, which is read as our tag
THEIRS = re.compile(  # of Qwen-VL, Llama, Phi and Gemma
    r"<\|(?:vision_start|image_pad|image|image_\d+|video_pad)\|>|<image_soft_token>|<start_of_image>"
)


def placed(turns: list[Turn], tag: str, images: bool) -> list[Turn]:
    """Returns turns with `<image>` read as our tag; `images` says whether any come with them.

    Where `<image>` follows all text of a question, it is put first, as LLaVA does. Our tag stays
    where it is written, as published, with a warning there.

    Raises ValueError for a placeholder that would be read as words: another model's, and `<image>`
    without an image or beside our tag.
    """
    if not images:
        _check_none_left(turns, "and no image came; give the image, or leave that out")
        return turns
    for turn in turns:
        if found := THEIRS.search(turn.text):
            raise ValueError(
                f"a question holds {found[0]!r}, another model's placeholder of an image; write "
                f"{tag!r} where the image stands, or leave it out"
            )
    if any(tag in turn.text for turn in turns):
        others = [turn for turn in turns if tag not in turn.text]
        _check_none_left(others, f"and another turn {tag!r}; write {tag!r} in all of them")
        _warn_of_last(turns, tag)
        return turns
    return [replace(turn, text=_first(turn).replace(OURS, tag)) for turn in turns]


def _first(turn: Turn) -> str:
    """Returns the turn's text with each `<image>` that follows all of a question put before it."""
    words, count = turn.text.rstrip(), 0
    while turn.kind == "user" and words.endswith(OURS):
        words, count = words.removesuffix(OURS).rstrip(), count + 1
    return turn.text if OURS in words or not words else f"{OURS}\n" * count + words


def _warn_of_last(turns: list[Turn], tag: str) -> None:
    """Warns of a question that comes before its image."""
    texts = [turn.text.strip() for turn in turns if turn.kind == "user"]
    if any(text.endswith(tag) and not text.startswith(tag) for text in texts):
        warnings.warn(
            f"{tag!r} comes after the question; these models were trained on images before the "
            "question and answer worse so, so write it first",
            stacklevel=2,
        )


def _check_none_left(turns: list[Turn], why: str) -> None:
    """Raises ValueError for a user's turn with an `<image>` that would be read as words."""
    if any(OURS in turn.text for turn in turns if turn.kind == "user"):
        raise ValueError(f"a question holds {OURS!r} {why}")


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
    if not images:
        return [[] for _ in range(batch)]
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
    return f"{count} images came for {places} placeholders {tag!r} in the text; write one an image"
