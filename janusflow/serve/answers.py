"""Answers to a chat request: tokens as they are generated, until a stop text, a limit, or a
disconnect.
"""

from __future__ import annotations

import base64
import binascii
import random
from dataclasses import dataclass

import torch
from transformers import StoppingCriteria, TextStreamer

from janusflow.models.janus_pro.token_choice import COLDEST
from janusflow.serve.errors import ApiError
from janusflow.serve.schemas import ChatRequest, ImagePart, Message
from janusflow.serve.worker import ModelJob
from janusflow.utils import images

MAX_TOKENS = 512  # where the request does not say
MAX_PIXELS = 64_000_000  # of all images of a request


@dataclass(frozen=True)
class Choice:
    """One answer: its text, why it ended ("stop" or "length"), and its number of tokens."""

    text: str
    reason: str
    tokens: int


def answer(pipe, asked: ChatRequest, job: ModelJob) -> tuple[int, list[Choice]]:
    """Returns prompt tokens and `n` answers, and reports (index, text) and (index, Choice)."""
    inputs = pipe.processor(_turns(asked.messages)).to(pipe.device)
    most = _room(pipe, asked, inputs["input_ids"].shape[1])
    seed = random.randrange(2**32) if asked.seed is None else asked.seed
    choices = []
    for index in range(asked.n or 1):
        choices.append(_one(pipe, asked, inputs, most, index, (seed + index) % 2**63, job))
        job.tell((index, choices[-1]))
    return inputs["input_ids"].shape[1], choices


def _room(pipe, asked: ChatRequest, prompt: int) -> int:
    """Returns how long an answer may be. Raises ApiError if the prompt is too long."""
    longest = pipe.model.config.get_text_config().max_position_embeddings
    wanted = asked.max_completion_tokens or asked.max_tokens
    if prompt + (wanted or 1) > longest:
        raise ApiError(
            f"the prompt has {prompt} tokens and the answer may have {wanted or 1}, and the model "
            f"takes {longest} together; shorten the messages or lower max_tokens",
            "messages",
            "context_length_exceeded",
        )
    return wanted or min(MAX_TOKENS, longest - prompt)


def _turns(messages: list[Message]) -> list[dict]:
    """Returns the messages in the processor's format, with their images read."""
    left, turns = MAX_PIXELS, []
    for i, message in enumerate(messages):
        content = message.content
        if isinstance(content, list):
            content = []
            for part in message.content:
                if isinstance(part, ImagePart):
                    image = _image(part.image_url.url, f"messages.{i}.content")
                    left -= image.width * image.height
                    if left < 0:
                        raise ApiError(
                            f"the images have more than {MAX_PIXELS:,} pixels together; send fewer "
                            "or smaller ones",
                            "messages",
                        )
                    content.append({"type": "image", "image": image})
                else:
                    content.append({"type": "text", "text": part.text})
        role = "system" if message.role == "developer" else message.role
        turns.append({"role": role, "content": content})
    return _checked(turns)


def _checked(turns: list[dict]) -> list[dict]:
    if turns[-1]["role"] != "user":
        raise ApiError(
            f"the last message is the {turns[-1]['role']}'s; end with a user's", "messages"
        )
    content = turns[-1]["content"]
    texts = [content] if isinstance(content, str) else [p.get("text", "") for p in content]
    if not "".join(texts).strip():
        raise ApiError("the last message holds no text; ask something", "messages")
    return turns


def _image(url: str, place: str):
    head, comma, text = url.partition(",")
    kind = head.lower()
    if not comma or not kind.startswith("data:image/") or not kind.endswith(";base64"):
        raise ApiError(
            "an image has to come inside the request, as 'data:image/png;base64,...'; this server "
            "fetches nothing",
            place,
            "invalid_image_url",
        )
    try:
        return images.decode(base64.b64decode("".join(text.split()), validate=True), "the image")
    except binascii.Error as error:
        said = f"the image is no base64 ({error}); encode the file's bytes"
        raise ApiError(said, place, "invalid_image") from error
    except ValueError as error:
        raise ApiError(str(error), place, "invalid_image") from error


def _one(
    pipe, asked: ChatRequest, inputs, most: int, index: int, seed: int, job: ModelJob
) -> Choice:
    tokenizer, visible = pipe.processor.tokenizer, Visible(asked.stops())
    watch = _EndOfAnswer(job, visible)
    drawn = (asked.temperature or 0) >= COLDEST
    settings = dict(do_sample=drawn, max_new_tokens=most)
    if drawn:
        settings |= dict(temperature=asked.temperature, top_p=asked.top_p or 1.0, top_k=0)

    def tell(text: str) -> None:
        if new := visible.add(text):
            job.tell((index, new))

    ids = pipe.answer(
        inputs,
        **settings,
        seed=seed,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        streamer=_Pieces(tokenizer, pipe.echoes, tell),
        stopping_criteria=[watch],
    )[0]
    job.check()
    if rest := visible.finish():
        job.tell((index, rest))
    ended = visible.ended or int(ids[-1]) == tokenizer.eos_token_id
    return Choice(visible.text, "stop" if ended or len(ids) < most else "length", len(ids))


class _Pieces(TextStreamer):
    """Passes on the text of tokens as soon as it is certain."""

    def __init__(self, tokenizer, skip_prompt: bool, tell):
        super().__init__(tokenizer, skip_prompt=skip_prompt, skip_special_tokens=True)
        self._tell = tell

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:  # noqa: ARG002
        self._tell(text)


class _EndOfAnswer(StoppingCriteria):
    """Ends an answer at a stop text, or once nobody waits for it."""

    def __init__(self, job: ModelJob, visible: Visible):
        self._job, self._visible = job, visible

    def __call__(self, input_ids, *_args, **_kwargs):
        ends = self._visible.ended or self._job.cancelled.is_set()
        return torch.full((len(input_ids),), ends, device=input_ids.device)


class Visible:
    """The visible part of an answer: stripped of white space, and ending before the first stop
    text.

    The possible beginning of a stop text, and trailing white space, are held back.
    """

    def __init__(self, stops: list[str]):
        self._stops, self._all, self._sent = stops, "", 0
        self.ended = False

    @property
    def text(self) -> str:
        """The text that has been sent so far."""
        return self._all[: self._sent]

    def add(self, piece: str) -> str:
        """Adds one piece and returns the newly visible text."""
        if self.ended:
            return ""
        self._all = (self._all + piece) if self._all else piece.lstrip()
        places = [p for p in (self._all.find(stop) for stop in self._stops) if p >= 0]
        if places:
            self.ended, self._all = True, self._all[: min(places)]
        return self._show(len(self._all) - (0 if self.ended else self._begun()))

    def finish(self) -> str:
        """Returns the remaining text when the answer has ended."""
        return self._show(len(self._all))

    def _begun(self) -> int:
        """Returns the number of letters at the end that may begin a stop text."""
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        sizes = range(min(longest, len(self._all)), 0, -1)
        starts = (n for n in sizes if any(s.startswith(self._all[-n:]) for s in self._stops))
        return next(starts, 0)

    def _show(self, end: int) -> str:
        end = max(self._sent, len(self._all[:end].rstrip()))
        new, self._sent = self._all[self._sent : end], end
        return new
