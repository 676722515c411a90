"""The schemas of requests. An unknown parameter or value is refused by name."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from janusflow.utils import limits, safe_io

MAX_IMAGES = 10  # of one request
MAX_CHOICES = 8  # answers to one question
MAX_STEPS = 100
MAX_TOKENS = 4_096  # of an answer
MAX_MESSAGES = 256
MAX_SEED = 2**63 - 1
SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")
# OpenAI's names of qualities, and the presets that they stand for
PRESETS = {"auto": "exact", "standard": "exact", "hd": "exact"}
PRESETS |= {"low": "draft", "medium": "fast", "high": "high", "exact": "exact"}
PRESETS |= {"fast": "fast", "draft": "draft"}


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("is blank; write some text")
    return _any_text(value)


def _any_text(value: str) -> str:
    try:
        safe_io.check_prompt(value, "it")
    except ValueError as error:
        raise ValueError(str(error).removeprefix("it ")) from None
    return value


def _size(value: str) -> str:
    if value != "auto" and not SIZE.fullmatch(value):
        raise ValueError(f"is {value!r:.20}; expected 'auto' or 'WIDTHxHEIGHT' in pixels")
    return value


Text = Annotated[str, AfterValidator(_text)]
AnyText = Annotated[str, AfterValidator(_any_text)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


class Request(BaseModel):
    """Base of all requests: no unknown names, no numbers in quotes, only finite numbers."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    model: str | None = None
    user: Annotated[str, Field(max_length=200)] | None = None  # goes to the server's log
    seed: Seed | None = None  # of the first image or answer; drawn where none is given


class ImageRequest(Request):
    """`POST /v1/images/generations`; the last four parameters are additions to OpenAI's."""

    prompt: Text
    n: Annotated[int, Field(ge=1, le=MAX_IMAGES)] | None = None
    size: Annotated[str, AfterValidator(_size)] | None = None
    quality: Literal[tuple(PRESETS)] | None = None
    response_format: Literal["b64_json", "url"] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    background: Literal["auto", "opaque"] | None = None
    stream: Literal[False] | None = None
    partial_images: Literal[0] | None = None
    negative_prompt: AnyText | None = None
    guidance_scale: Annotated[float, Field(ge=0, le=100)] | None = None
    num_inference_steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None

    def sides(self) -> tuple[int | None, int | None]:
        """Width and height, or None for the model's own."""
        found = SIZE.fullmatch(self.size or "")
        return (int(found[1]), int(found[2])) if found else (None, None)


class EditRequest(ImageRequest):
    """The form fields of `POST /v1/images/edits`; `strength` is an addition to OpenAI's."""

    model_config = ConfigDict(extra="forbid", strict=False, allow_inf_nan=False)

    stream: Literal["false"] | None = None
    partial_images: Literal["0"] | None = None
    strength: Annotated[float, Field(gt=0, le=1)] | None = None


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(Part):
    type: Literal["text"]
    text: AnyText


class ImageUrl(Part):
    url: str
    detail: Literal["auto", "low"] | None = None  # the model reads one size


class ImagePart(Part):
    type: Literal["image_url"]
    image_url: ImageUrl


Content = str | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]]


class Message(Part):
    role: Literal["system", "developer", "user", "assistant"]
    content: Content


class StreamOptions(Part):
    include_usage: bool = False


class ResponseFormat(Part):
    type: Literal["text"]


class ChatRequest(Request):
    """`POST /v1/chat/completions`. Answers are greedy unless a temperature is given."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stop: Annotated[str, Field(min_length=1)] | list[str] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    logprobs: Literal[False] | None = None
    response_format: ResponseFormat | None = None
    modalities: list[Literal["text"]] | None = None
    store: Literal[False] | None = None

    def stops(self) -> list[str]:
        """The texts at which an answer ends."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @model_validator(mode="after")
    def _fits(self) -> ChatRequest:
        stops = self.stops()
        if len(stops) > 4 or not all(0 < len(stop) <= limits.most("prompt") for stop in stops):
            raise ValueError(
                "stop is empty or longer than four texts; expected one text, or up to four"
            )
        if None not in (self.max_tokens, self.max_completion_tokens):
            raise ValueError("max_tokens and max_completion_tokens mean the same; leave one out")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options are for streams; set stream to true, or leave it out")
        if self.top_p is not None and not self.temperature:
            raise ValueError("top_p needs a temperature above 0; without one answers are greedy")
        return self
