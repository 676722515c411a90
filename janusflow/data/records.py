"""Records: rows of any file format, before pixels and tokens are made of them."""

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from janusflow.data import documents
from janusflow.data.documents import PLACEHOLDER
from janusflow.data.rows import CHATS, TEXTS, check_single, edit_keys, image_keys, kept, text_keys
from janusflow.data.samples import BrokenSample
from janusflow.models.janusflow.chat_format import images_first
from janusflow.utils.keywords import renamed
from janusflow.utils.safe_io import refuse_constant, unique

ROLES = {"human": "user", "gpt": "assistant"}  # LLaVA's names
MAX_IMAGES = 64  # in one conversation
TAG = "<image_placeholder>"  # the model's own


@dataclass(frozen=True, kw_only=True)
class Record:
    """One row of any format. `images` are the contents of image files, as bytes."""

    name: str
    text: str | None = None
    captions: tuple[str, ...] = ()  # several texts of an image, of which each drawing takes one
    messages: tuple[Mapping[str, str], ...] = ()
    images: tuple[bytes, ...] = field(default=(), repr=False)
    shown: tuple[bytes, ...] = field(default=(), repr=False)  # what an image is to be made of
    document: bool = False  # the text places the images by <image>, and all of it is learnt


Record.__init__ = renamed(pictures="images")(Record.__init__)


class Records(Protocol):
    """Rows by number. `records[i]` raises BrokenSample for a row that cannot be read."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


def parse_row(line: bytes, name: str) -> dict:
    """Parses a line as a JSON object. Raises BrokenSample for anything else."""
    try:
        text = line.decode("utf-8-sig")
        row = json.loads(text, parse_constant=refuse_constant, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise BrokenSample(name, f"it is no line of JSON ({error!s:.120})") from None
    if not isinstance(row, dict):
        raise BrokenSample(name, f"it holds a {type(row).__name__}; expected a JSON object")
    return row


def to_record(
    row: Mapping,
    kind: str,
    name: str,
    fetch: Callable[[Any], bytes],
    ignored: Collection[str] = (),
) -> Record:
    """Converts a row of JSON, a table or a tar shard to a record of this kind.

    - generation: an image (`image`, `image_path`, `file_name`, ...) and a text (`text`, `caption`,
      `prompt`). An edit also has a `source` image, and its result under `target`.
    - understanding: `messages` as {role, content}, LLaVA's `conversations`, or `question` and
      `answer`, with images under the same keys or in the messages; or an interleaved document
      (`documents.parts_of`).
    - text: `text`.

    `fetch` returns the bytes of an image value, and `ignored` keys are not read. Raises
    BrokenSample naming what is missing, there twice or of the wrong type.
    """
    row = kept(row, ignored)
    try:
        check_single(row, kind)
        if kind == "text":
            return Record(name=name, **_text(row))
        if kind == "understanding" and (parts := documents.parts_of(row)):
            return _document(parts, name, fetch)
        if kind == "understanding":
            messages, given = _messages(row)
            images = _fetched(given, fetch) if given else _images(row, fetch)
            return Record(name=name, messages=_shown(messages, len(images)), images=images)
        if edit := edit_keys(row):
            source, target, text = (row[key] for key in edit)
            made = dict(images=_all(target, fetch), shown=_all(source, fetch))
            return Record(name=name, **_texts(text, repr(edit[2])), **made)
        images = _images(row, fetch)
        if len(images) != 1:
            raise ValueError(f"it has {len(images)} images; expected one under 'image'")
        return Record(name=name, **_text(row), images=images)
    except BrokenSample:
        raise
    except ValueError as error:
        raise BrokenSample(name, str(error)) from error


def check_text(text: Any, what: str) -> str:
    """Returns a text or number as text. Raises ValueError for an empty text, invalid Unicode, true
    or false (whose words are the language's choice), and a number that stands for a missing text.
    """
    if isinstance(text, int | float) and not isinstance(text, bool):
        if isinstance(text, float) and not math.isfinite(text):
            raise ValueError(f"{what} is {text}; expected a text")
        text = str(text)
    if not isinstance(text, str):
        raise ValueError(f"{what} is a {type(text).__name__}; expected a text")
    if not text.strip():
        raise ValueError(f"{what} is empty; write some text")
    if "\0" in text:
        raise ValueError(f"{what} holds a NUL character; remove it, or save the file as UTF-8")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(f"{what} is not Unicode text; write it in UTF-8")
    return text


def _text(row: Mapping) -> dict:
    key = next(iter(text_keys(row)), None)
    if key is None:
        raise ValueError(
            f"it has none of the keys {', '.join(map(repr, TEXTS))}; give its text under one of "
            "them"
        )
    return _texts(row[key], repr(key))


def _texts(found: Any, what: str) -> dict:
    """Returns a record's text, and its captions where it is a list of several."""
    if not isinstance(found, list | tuple):
        return {"text": check_text(found, what)}
    texts = tuple(check_text(text, f"a text of {what}") for text in found)
    if not texts:
        raise ValueError(f"{what} is an empty list; expected a text, or several")
    return {"text": texts[0], "captions": texts if len(texts) > 1 else ()}


def _images(row: Mapping, fetch: Callable[[Any], bytes]) -> tuple[bytes, ...]:
    return _all(next((row[key] for key in image_keys(row)), []), fetch)


def _all(found: Any, fetch: Callable[[Any], bytes]) -> tuple[bytes, ...]:
    return _fetched(_listed(found), fetch)


def _listed(found: Any) -> Sequence[Any]:
    return found if isinstance(found, list | tuple) else [found]


def _document(parts, name: str, fetch: Callable[[Any], bytes]) -> Record:
    """Returns texts and images in order, one per line."""
    what = "a text of the document"
    texts = [PLACEHOLDER if text is None else check_text(text, what) for text, _ in parts]
    if all(text is None for text, _ in parts):
        raise ValueError("the document has no text to learn from; give it text beside the images")
    given = [image for text, image in parts if text is None]
    both = dict(text="\n".join(texts), images=_fetched(given, fetch))
    return Record(name=name, document=True, **both)


def _fetched(found: Sequence[Any], fetch: Callable[[Any], bytes]) -> tuple[bytes, ...]:
    if len(found) > MAX_IMAGES:
        raise ValueError(f"it has {len(found)} images; at most {MAX_IMAGES} are read")
    return tuple(fetch(value) for value in found)


Message = Mapping[str, str]


def _messages(row: Mapping) -> tuple[tuple[Message, ...], list]:
    """Returns the messages, and the image values inside them."""
    if row.get("question") is not None and row.get("answer") is not None:
        asked = {"role": "user", "content": check_text(row["question"], "'question'")}
        return (
            (asked, {"role": "assistant", "content": check_text(row["answer"], "'answer'")}),
            [],
        )
    key = next((key for key in CHATS if row.get(key) is not None), None)
    if key is None:
        raise ValueError(
            "it has neither 'messages' nor 'question' and 'answer'; give it one of them"
        )
    if not isinstance(row[key], list | tuple) or not row[key]:
        raise ValueError(f"{key!r} is {row[key]!r:.40}; expected a list of messages")
    both = [_message(message) for message in row[key]]
    return tuple(message for message, _ in both), [one for _, given in both for one in given]


def _message(message: Any) -> tuple[Message, list]:
    if not isinstance(message, Mapping):
        raise ValueError(f"a message is {message!r:.40}; expected {{'role': ..., 'content': ...}}")
    role = message.get("role", message.get("from"))
    content = message.get("content", message.get("value"))
    images: list = []
    if isinstance(content, list | tuple) and content:
        pieces = [_part(part) for part in images_first(content)]
        images = [image for _, image in pieces if image is not None]
        content = "".join(text for text, _ in pieces)
    text = check_text(content, "a message's content")
    own = [one for key in image_keys(message) for one in _listed(message[key])]
    if own and not any(mark in text for mark in (PLACEHOLDER, TAG)):
        text = f"{PLACEHOLDER}\n" * len(own) + text
    images += own
    if not isinstance(role, str):
        raise ValueError(f"a message's role is {role!r:.40}; expected 'user' or 'assistant'")
    return {"role": ROLES.get(role, role), "content": text}, images


def _part(part: Any) -> tuple[str, Any]:
    """Returns text and image of one part of a message's content, as in chat templates.

    Parts are {"type": "text", "text": ...}, {"type": "image"} with or without "image", "path" or
    "url", and {"type": "image_url", "image_url": {"url": ...}}.
    """
    if isinstance(part, str):
        return part, None
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" or (kind is None and isinstance(part, Mapping) and "text" in part):
        return check_text(part.get("text"), "a part's text"), None
    if kind in ("image", "image_url"):
        return f"{PLACEHOLDER}\n", documents.image_of(part)
    raise ValueError(f"a part of a message is {part!r:.60}; expected text or an image")


def _shown(messages: tuple[Message, ...], count: int) -> tuple[Message, ...]:
    """Places images without a placeholder before the first message, as LLaVA does."""
    if not count or any(x in m["content"] for m in messages for x in (PLACEHOLDER, TAG)):
        return messages
    first, *rest = messages
    return {**first, "content": f"{PLACEHOLDER}\n" * count + first["content"]}, *rest
