"""Streams an answer from a thread that ends when its reader does."""

import contextvars
from collections.abc import Callable, Iterator, Mapping
from threading import Event, Thread, current_thread

import torch
from torch import Tensor
from transformers import StoppingCriteria, TextIteratorStreamer


class Stop(StoppingCriteria):
    """A stopping criterion that ends an answer when its reader or its thread has stopped."""

    def __init__(self):
        self.left, self.reader = Event(), current_thread()

    def __call__(self, input_ids: Tensor, *_args, **_kwargs) -> Tensor:
        return torch.full((len(input_ids),), self.over, device=input_ids.device)

    @property
    def over(self) -> bool:
        """True once nobody reads the answer any more."""
        return self.left.is_set() or not self.reader.is_alive()


def stream(answer: Callable, tokenizer, skip_prompt: bool) -> Iterator[str]:
    """Yields the pieces of text that `answer(streamer=..., stopping_criteria=[Stop])` produces.

    It runs in its own thread, which stops at the next token once the iterator is closed or the
    thread that reads it has ended.
    """
    stop, failures = Stop(), []
    pieces = TextIteratorStreamer(tokenizer, skip_prompt=skip_prompt, skip_special_tokens=True)

    def work() -> None:
        try:
            answer(streamer=pieces, stopping_criteria=[stop])
        except BaseException as error:  # raised again below, where someone waits
            failures.append(error)
            pieces.end()

    thread = Thread(target=contextvars.copy_context().run, args=(work,))
    thread.start()
    try:
        yield from _read(pieces, stop)
    finally:
        stop.left.set()
        thread.join()
    if failures:
        raise failures[0]


def _read(pieces: TextIteratorStreamer, stop: Stop) -> Iterator[str]:
    """Returns the text without leading space."""
    answered = False
    for piece in pieces:
        stop.reader = current_thread()
        piece = piece if answered else piece.lstrip()
        answered = answered or bool(piece)
        if piece:
            yield piece


def with_criteria(settings: Mapping, own: Mapping) -> dict:
    """Returns the settings with a stream's criteria before the caller's."""
    criteria = [*own["stopping_criteria"], *(settings.get("stopping_criteria") or [])]
    return {**settings, **own, "stopping_criteria": criteria}
