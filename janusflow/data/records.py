"""What a file holds, before pixels and tokens: one way of reading rows for all formats."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from janusflow.data.samples import BrokenSample

PICTURES = ("image", "images", "file_name", "picture", "jpg", "jpeg", "png", "webp")
TEXTS = ("text", "caption", "prompt", "txt")
CHATS = ("messages", "conversations")
ROLES = {"human": "user", "gpt": "assistant"}  # LLaVA's names
MAX_PICTURES = 64  # in one conversation


@dataclass(frozen=True, kw_only=True)
class Record:
    """A row of any format. `pictures` are the bytes of their files."""

    name: str
    text: str | None = None
    messages: tuple[Mapping[str, str], ...] = ()
    pictures: tuple[bytes, ...] = field(default=(), repr=False)


class Records(Protocol):
    """Rows by number; `records[i]` raises BrokenSample for what cannot be read."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


def parse_row(line: bytes, name: str) -> dict:
    """A JSON object of a line; BrokenSample for anything else."""
    try:
        row = json.loads(line.decode("utf-8-sig"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise BrokenSample(name, f"it is no line of JSON ({error!s:.120})") from None
    if not isinstance(row, dict):
        raise BrokenSample(name, f"it holds a {type(row).__name__}; expected a JSON object")
    return row


def kind_of(row: Mapping) -> str | None:
    """The kind of sample that a row's keys speak of, or None."""
    if any(key in row for key in CHATS) or {"question", "answer"} <= row.keys():
        return "understanding"
    if not any(key in row for key in TEXTS):
        return None
    return "generation" if any(key in row for key in PICTURES) else "text"


def to_record(row: Mapping, kind: str, name: str, fetch: Callable[[Any], bytes]) -> Record:
    """A row of JSON, of a table or of a tar shard as a record of this kind.

    generation: a picture (`image`, `file_name`, ...) and a text (`text`, `caption`, `prompt`).
    understanding: `messages` as {role, content}, LLaVA's `conversations`, or `question` and
    `answer`, with `image` or `images`. text: `text`. `fetch` turns what stands for a picture into
    bytes. BrokenSample says what is missing or of the wrong type.
    """
    try:
        if kind == "text":
            return Record(name=name, text=_text(row))
        pictures = _pictures(row, fetch)
        if kind == "understanding":
            return Record(name=name, messages=_messages(row), pictures=pictures)
        if len(pictures) != 1:
            raise ValueError(f"it has {len(pictures)} pictures; expected one under 'image'")
        return Record(name=name, text=_text(row), pictures=pictures)
    except BrokenSample:
        raise
    except ValueError as error:
        raise BrokenSample(name, str(error)) from error


def check_text(text: Any, what: str) -> str:
    """ValueError unless it is a text of Unicode that says something."""
    if not isinstance(text, str):
        raise ValueError(f"{what} is a {type(text).__name__}; expected a text")
    if not text.strip() or "\0" in text:
        raise ValueError(f"{what} is empty or holds a NUL")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(f"{what} is not Unicode text; write it in UTF-8")
    return text


def _text(row: Mapping) -> str:
    key = next((key for key in TEXTS if row.get(key) is not None), None)
    if key is None:
        raise ValueError(f"it has none of {', '.join(map(repr, TEXTS))}")
    return check_text(row[key], repr(key))


def _pictures(row: Mapping, fetch: Callable[[Any], bytes]) -> tuple[bytes, ...]:
    found = next((row[key] for key in PICTURES if row.get(key) is not None), [])
    found = found if isinstance(found, list | tuple) else [found]
    if len(found) > MAX_PICTURES:
        raise ValueError(f"it has {len(found)} pictures; at most {MAX_PICTURES} are read")
    return tuple(fetch(value) for value in found)


def _messages(row: Mapping) -> tuple[Mapping[str, str], ...]:
    if "question" in row and "answer" in row:
        asked = {"role": "user", "content": check_text(row["question"], "'question'")}
        return asked, {"role": "assistant", "content": check_text(row["answer"], "'answer'")}
    key = next((key for key in CHATS if row.get(key) is not None), None)
    if key is None:
        raise ValueError("it has neither 'messages' nor 'question' and 'answer'")
    if not isinstance(row[key], list | tuple) or not row[key]:
        raise ValueError(f"{key!r} is {row[key]!r:.40}; expected a list of messages")
    return tuple(_message(message) for message in row[key])


def _message(message: Any) -> Mapping[str, str]:
    if not isinstance(message, Mapping):
        raise ValueError(f"a message is {message!r:.40}; expected {{'role': ..., 'content': ...}}")
    role = message.get("role", message.get("from"))
    text = check_text(message.get("content", message.get("value")), "a message's content")
    if not isinstance(role, str):
        raise ValueError(f"a message's role is {role!r:.40}; expected 'user' or 'assistant'")
    return {"role": ROLES.get(role, role), "content": text}


def _refuse(constant: str):
    raise ValueError(f"{constant} is no JSON number")
