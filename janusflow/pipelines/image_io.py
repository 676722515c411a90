"""Image files with metadata about how they were generated, and the pipeline that generates them."""

import json
import sys
from pathlib import Path

from PIL import Image, PngImagePlugin

from janusflow.pipelines import auto_pipeline
from janusflow.utils import atomic_io
from janusflow.utils.devices import EIGHT_BIT, describe, pick_device, pick_dtype, written
from janusflow.utils.version import VERSION

FORMATS = (".png", ".jpg", ".jpeg", ".webp")
QUALITY = 95  # of JPEG, from 1 to 100; WebP is lossless
LONGEST_STORY = 30_000  # characters of a story in EXIF, which holds 64 kB in two bytes a character
USER_COMMENT = 0x9286  # EXIF's place for any text
UNICODE = b"UNICODE\0"


def load(model: str, vae: str | None, device: str, dtype: str, lora: str | None = None):
    """Returns the pipeline on its device, with a named adapter, and prints what was loaded."""
    from transformers.utils import logging

    place = pick_device(device)
    kind = pick_dtype(dtype, place)
    coded = auto_pipeline.eight_bit() if dtype == EIGHT_BIT else None
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    pipe = auto_pipeline.load(model, kind, vae, coded)
    if place.type != "cpu":  # where it is, and diffusers says that float16 cannot run there
        pipe.to(place)
    looked_at = sys.stderr.isatty()
    pipe.set_progress_bar_config(disable=not looked_at, desc="steps", leave=False)
    if lora:
        pipe.load_lora_weights(lora)
    if looked_at:
        print(f"{model} on {describe(place)} in {written(kind, dtype)}", file=sys.stderr)
    return pipe


def cost(out, index: int) -> dict[str, int]:
    """Returns an image's network evaluations, as its metadata state them."""
    skipped, by = getattr(out, "skipped", None), getattr(out, "generated_by", None)
    told = {"calls": out.calls} | ({} if skipped is None else {"skipped": skipped[index]})
    return told | ({} if by is None else {"generated_by": by})


def save(image: Image.Image, note: dict, path: Path) -> Path:
    """Writes a PNG, JPEG or WebP, by the path's suffix, with metadata, atomically.

    `note` is stored as text: in a PNG one chunk per key, elsewhere one JSON object in EXIF's user
    comment; `story` reads either. An existing file keeps its mode, and a symbolic link is kept.
    """
    note = {k: str(v) for k, v in (note | {"software": f"janusflow {VERSION}"}).items()}
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise ValueError(f"{str(path)!r} ends in {kind!r}; expected one of {', '.join(FORMATS)}")
    if kind == ".png":
        chunks = PngImagePlugin.PngInfo()
        for key, value in note.items():
            chunks.add_itxt(key, value)
        settings = dict(format="PNG", pnginfo=chunks)
    elif kind == ".webp":
        settings = dict(format="WEBP", lossless=True, exif=_exif(note))
    else:
        settings = dict(format="JPEG", quality=QUALITY, subsampling=0, exif=_exif(note))
    with atomic_io.replacing(path, sync=False) as part:
        image.save(part, **settings)
    return path


def _exif(note: dict[str, str]) -> bytes:
    from PIL import ExifTags

    text = json.dumps(note, ensure_ascii=False)
    if len(text) > LONGEST_STORY:
        note = {key: value[: LONGEST_STORY // (2 * len(note))] for key, value in note.items()}
        text = json.dumps(note, ensure_ascii=False)
    found = Image.Exif()
    found.get_ifd(ExifTags.IFD.Exif)[USER_COMMENT] = UNICODE + text.encode("utf-16-be")
    return found.tobytes()


def story(image: Image.Image) -> dict[str, str]:
    """Returns the metadata that `save` wrote, and an empty dictionary for other images."""
    from PIL import ExifTags

    if getattr(image, "text", None):
        return dict(image.text)
    comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(USER_COMMENT, b"")
    try:
        found = json.loads(comment.removeprefix(UNICODE).decode("utf-16-be"))
    except (ValueError, AttributeError):
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}
