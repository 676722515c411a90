"""Converts conversations to text, in both published chat formats and both message formats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from janusflow.utils.images import read
from janusflow.utils.keywords import choice, refuse_unknown

FORMATS = {"deepseek": ("<|User|>", "<|Assistant|>"), "deepseek_old": ("User", "Assistant")}
SYSTEM_PROMPT = (
    "You are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language."
)


@dataclass(frozen=True)
class Turn:
    """One message: its role as spelled, its text with one tag per image, and its images."""

    role: str
    text: str
    images: tuple[Any, ...] = ()

    @property
    def kind(self) -> str:
        """The role, `user`, `assistant` or `system` from spellings such as `User` or `<|User|>`."""
        return self.role.strip("<|｜>").lower()


def listed(conversation) -> str | list:
    """Returns a question, or messages and batches as lists. Raises TypeError for anything else."""
    if isinstance(conversation, str):
        return str(conversation)
    if isinstance(conversation, np.ndarray):
        return conversation.tolist()
    if isinstance(conversation, Sequence) and not isinstance(conversation, bytes):
        return list(conversation)
    raise TypeError(
        f"the question is {conversation!r:.80}; expected a text, a list of messages, or a list of "
        "either"
    )


def is_one(conversation) -> bool:
    """Whether this is one question or list of messages, no batch. Raises TypeError for others."""
    found = listed(conversation)
    return isinstance(found, str) or not found or isinstance(found[0], Mapping)


def read_turns(conversation: Sequence[Mapping], image_tag: str) -> list[Turn]:
    r"""Returns messages of either format as turns; the messages are not modified.

    Published: {"role": "User", "content": "<image_placeholder>\n...", "images": [...]}.
    transformers: {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": ...}]}.
    """
    turns = [_read_turn(message, image_tag) for message in conversation]
    if all(turn.kind == "system" for turn in turns):
        raise ValueError("the conversation asks nothing; give at least one user's message")
    return turns


def _read_turn(message: Mapping, image_tag: str) -> Turn:
    if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
        raise ValueError(f"a message is {message!r:.80}; expected a dict with 'role' and 'content'")
    refuse_unknown("a message", message, ("role", "content", "images", "name"))
    content = message["content"]
    if not isinstance(message["role"], str):
        raise ValueError(f"the role is {message['role']!r:.40}; use 'user' or 'assistant'")
    if not isinstance(content, str | list | tuple | None):
        raise ValueError(
            f"the content of a message is {content!r:.60}; expected a text or a list of parts"
        )
    own = as_images(message.get("images"))
    if content is None or isinstance(content, str):
        turn = Turn(message["role"], content or "", own)
    else:
        text, images = _read_parts(content, image_tag)
        turn = Turn(message["role"], text, (*images, *own))
    if turn.kind not in ("user", "assistant", "system"):
        raise ValueError(f"unknown role {turn.role!r}; use 'user', 'assistant' or 'system'")
    if turn.kind == "user" and not turn.text.strip() and not turn.images:
        raise ValueError("a user's message is empty; give some text")
    return turn


def as_images(images: Any) -> tuple:
    """Returns a tuple of images from None, one image, a list of them or a batched array."""
    if images is None:
        return ()
    if isinstance(images, list | tuple) or getattr(images, "ndim", 0) == 4:
        return tuple(images)
    return (images,)


def images_first(parts: Sequence) -> list:
    """Returns a message's parts with images that follow all of its text put before it.

    Many clients send the text first; these models were trained on images before the question.
    """
    shown = [isinstance(p, Mapping) and p.get("type") in ("image", "image_url") for p in parts]
    if shown != sorted(shown):
        return list(parts)
    return [parts[i] for i in sorted(range(len(parts)), key=lambda i: not shown[i])]


def _read_parts(parts: Sequence[Mapping], image_tag: str) -> tuple[str, list]:
    texts, images = [], []
    for part in images_first(parts):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            refuse_unknown("a part of type 'text'", part, ("type", "text"))
            texts.append(part["text"])
        elif kind == "image":
            refuse_unknown("a part of type 'image'", part, ("type", "image", "path", "url"))
            texts.append(f"{image_tag}\n")
            images += _image_of(part)
        else:
            raise ValueError(
                f"a part of a message is {part!r:.80}; expected {{'type': 'text', 'text': ...}} or "
                "{'type': 'image'}"
            )
    return "".join(texts), images


def _image_of(part: Mapping) -> list:
    """Returns the image in a part of a message, given as such or by its path, or None."""
    known = [part[key] for key in ("image", "path", "url") if part.get(key) is not None]
    if len(known) > 1:
        raise ValueError("a part holds an image twice; give one of 'image', 'path' and 'url'")
    return [opened(image) for image in known]


def opened(image: Any) -> Any:
    """Returns an image, read if it is given by its path. Raises ValueError for an address."""
    return read(image) if isinstance(image, str | Path) else image


def render(
    turns: Sequence[Turn],
    words: tuple[str, str],
    *,
    system: str = SYSTEM_PROMPT,
    eos: str,
    ending: str = "answer",
) -> str:
    r"""Returns the prompt's text: the system text, then `User: ...\n\n` and `Assistant: ...<eos>`,
    stripped.

    `words` are the names of the two roles, which replace every spelling of a role. A system message
    replaces `system`. `ending` is "answer" to ask for an answer (a last assistant message is left
    open, and after a user message `Assistant:` follows), "closed" to add nothing, or "new" to
    always open another assistant message.
    """
    given = [turn.text for turn in turns if turn.kind == "system"]
    system = "\n\n".join(given) if given else system
    turns = [turn for turn in turns if turn.kind != "system"]
    text = f"{system}\n\n" if system else ""
    for turn in turns:
        name = words[0] if turn.kind == "user" else words[1]
        content = turn.text.strip()
        text += f"{name}: {content}" if content else f"{name}:"
        text += ("\n\n" if turn.kind == "user" else eos) if content else ""
    continues = ending == "answer" and bool(turns) and turns[-1].kind == "assistant"
    if continues:
        return text.strip().removesuffix(eos)
    opens = turns and (ending == "new" or (ending == "answer" and turns[-1].kind == "user"))
    return (text + (f"{words[1]}:" if opens else "")).strip()


def roles(sft_format: str) -> tuple[str, str]:
    """Returns the user's and the assistant's name in a chat format."""
    choice("no chat format named", sft_format, FORMATS)
    return FORMATS[sft_format]
