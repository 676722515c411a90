"""Finds the kind of a row by its keys.

A row with an unknown key that seems to name a file is refused, because dropping an image silently
would teach the wrong thing.
"""

from collections.abc import Collection, Mapping
from typing import Any

from janusflow.data import documents

# An image: these keys always, the second ones where their value ends as an image's file does.
IMAGES = (
    "image", "images", "image_path", "image_paths", "img", "img_path", "image_file", "image_name",
    "file_name", "picture", "photo", "image_url", "jpg", "jpeg", "png", "webp",
)  # fmt: skip
PATHS = ("path", "file", "filename", "file_path", "filepath", "url", "uri", "src")
TEXTS = ("text", "caption", "captions", "prompt", "txt", "description")
CHATS = ("messages", "conversations", "conversation")
# An edit: the image before, the image after, and what is asked for.
SOURCES = (
    "source", "source_image", "source_img", "src_img", "input_image", "original_image", "before",
    "input",
)  # fmt: skip
TARGETS = (
    "target", "target_image", "target_img", "edited_image", "edited_img", "output_image", "after",
    "output", "edited",
)  # fmt: skip
INSTRUCTIONS = ("instruction", "edit_prompt", "edit", "edit_instruction")
SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".jxl",
)  # fmt: skip
OTHERS = (".mp4", ".webm", ".mov", ".avi", ".mkv", ".wav", ".mp3", ".flac", ".ogg")  # not read
# What turns a text into half of something else.
PAIRED = {
    "chosen": "preferences are not read as text",
    "rejected": "preferences are not read as text",
    "response": "write it as 'question' and 'answer', or as 'messages'",
    "completion": "write it as 'question' and 'answer', or as 'messages'",
    "output": "write it as 'question' and 'answer', or as 'messages'",
    "instruction": "write it as 'question' and 'answer', or as 'messages'",
    "target": "write it as 'question' and 'answer', or as 'messages'",
}
LIKE = ("image", "img", "picture", "photo", "pixel")


def image_keys(row: Mapping) -> list[str]:
    """Returns the keys of a row's images: image keys with a value, path keys that name one."""
    found = [key for key in IMAGES if row.get(key) not in (None, [])]
    return found + [key for key in PATHS if _names_image(row.get(key))]


def kept(row: Mapping, ignored: Collection[str]) -> dict:
    """Returns a row without the keys that are not to be read."""
    return {key: value for key, value in row.items() if key not in ignored}


def kind_of(row: Mapping, ignored: Collection[str] = ()) -> str | None:
    """Returns the kind of sample of a row, or None.

    Raises ValueError naming a key that is not understood, or two of which only one can be learnt.

    `ignored` are keys that may be present without being read.
    """
    row = kept(row, ignored)
    edit = edit_keys(row)
    document = None if edit else documents.parts_of(row)
    images = list(edit[:2]) if edit else image_keys(row)
    kind = "generation" if edit else "understanding" if document else _kind(row, bool(images))
    if images and _on_the_web(row[images[0]]):
        raise ValueError(
            f"{images[0]!r} names an image on the web ({row[images[0]]!r:.60}); download the "
            "images first and name their files"
        )
    unread = [key for key in row if key not in IMAGES and key not in images]
    unread = [key for key in unread if not (edit and key in edit)]
    for key in unread:
        if why := _not_understood(row, key, kind, bool(images)):
            raise ValueError(
                f"{key!r} {why}; an image stands under {', '.join(map(repr, IMAGES[:3]))}..., a "
                f"text under {', '.join(map(repr, TEXTS[:3]))}; rename the key, or pass over it by "
                f"--set data.ignore={key}"
            )
    check_single(row, kind)
    return kind


def described(row: Mapping, name: str, ignored: Collection[str]) -> str | None:
    """Returns the kind of a row, or None. Raises ValueError under `name` for an unknown key."""
    try:
        return kind_of(row, ignored)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def check_single(row: Mapping, kind: str | None) -> None:
    """Raises ValueError for a row with two different texts, conversations or images.

    Only one of them would be learnt.
    """
    edit = edit_keys(row)
    _check_same(row, text_keys(row, edit) if kind in ("generation", "text") else (), "text")
    if kind == "understanding":
        asks = ["question"] if row.get("question") is not None and "answer" in row else []
        chats = [key for key in CHATS if row.get(key) is not None]
        _check_same(row, [*asks, *chats], "conversation")
    names = {key: _file_names(row[key]) for key in ([] if edit else image_keys(row))}
    _check_same(names, [key for key, value in names.items() if value], "image")


def text_keys(row: Mapping, edit: tuple[str, str, str] | None = None) -> list[str]:
    """Returns the keys that hold a text to draw by or to learn, of which the first counts."""
    known = INSTRUCTIONS if edit and edit[2] in INSTRUCTIONS else TEXTS
    given = [key for key in known if row.get(key) is not None]
    return [key for key in given if not _is_blank(row[key])] or given


def _is_blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


def _check_same(row: Mapping, keys: Collection[str], what: str) -> None:
    first, *more = keys or [None]
    if other := next((key for key in more if row[key] != row[first]), None):
        raise ValueError(
            f"{first!r} and {other!r} hold different {what}s, and one {what} of a row is read; "
            f"choose it by --set data.ignore={other} or --set data.ignore={first}"
        )


def _file_names(value: Any) -> list[str]:
    """Returns the names of local files, without their folders, that a row gives as its images."""
    found = value if isinstance(value, list | tuple) else [value]
    return [
        one.rpartition("/")[2] for one in found if isinstance(one, str) and not _on_the_web(one)
    ]


def edit_keys(row: Mapping) -> tuple[str, str, str] | None:
    """Returns the keys of the images before and after and the instruction; None for another row."""
    source = next((key for key in SOURCES if is_image(row.get(key))), None)
    target = next((key for key in TARGETS if is_image(row.get(key))), None)
    text = next((key for key in (*INSTRUCTIONS, *TEXTS) if row.get(key) is not None), None)
    return (source, target, text) if source and target and text else None


def is_image(value: Any) -> bool:
    """Returns whether a value stands for an image: bytes, a file name, or either in a mapping."""
    if isinstance(value, list | tuple) and value:
        value = value[0]
    if isinstance(value, Mapping):
        return value.get("bytes") is not None or _names_image(value.get("path"))
    return isinstance(value, bytes) or _names_image(value)


def why_not(row: Mapping) -> str:
    """Returns a sentence that says why a row is not a sample."""
    keys = ", ".join(map(repr, row)) or "none"
    if image_keys(row):
        known = ", ".join(map(repr, TEXTS))
        return f"an image without a text ({known}); its keys are {keys}"
    return f"no text, and no question with its answer; its keys are {keys}"


def _kind(row: Mapping, shown: bool) -> str | None:
    if any(row.get(key) is not None for key in CHATS):
        return "understanding"
    if row.get("question") is not None and row.get("answer") is not None:
        return "understanding"
    if not any(row.get(key) is not None for key in TEXTS):
        return None
    return "generation" if shown else "text"


def _not_understood(row: Mapping, key: str, kind: str | None, shown: bool) -> str | None:
    """Returns why an unread key must not be ignored, or None."""
    value = row[key]
    if value is None or key in TEXTS or key in CHATS:
        return None
    if key in PATHS:  # the page that a text comes from, or where its image once lay
        caption = kind == "text" and row.get("caption") is not None
        return f"of a caption ({value!r:.40}) names no file of an image" if caption else None
    if _names_image(value) and not _on_the_web(value):
        return f"names an image ({value!r:.40}) and is not read"
    if isinstance(value, str) and value.lower().endswith(OTHERS):
        return f"names a video or sound ({value!r:.40}), which is not read"
    if isinstance(value, bytes) or (isinstance(value, Mapping) and "bytes" in value):
        return "holds a file and is not read"
    if not shown and any(word in key.lower() for word in LIKE):
        return "looks like an image and is not read"
    if kind in ("text", "generation") and key in PAIRED:
        return f"is not read: {PAIRED[key]}"
    if kind == "understanding" and key in ("system", "system_prompt") and not _is_blank(value):
        return "is not read: write it as the first message, of the role 'system'"
    return None


def _names_image(value: Any) -> bool:
    if isinstance(value, list | tuple) and value:
        value = value[0]
    return isinstance(value, str) and value.split("?")[0].lower().endswith(SUFFIXES)


def _on_the_web(value: Any) -> bool:
    value = value[0] if isinstance(value, list | tuple) and value else value
    return isinstance(value, str) and value.startswith(("http://", "https://"))
