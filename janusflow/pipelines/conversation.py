"""A conversation about pictures that reads each word and each picture once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import Event, Lock

import torch
from torch import Tensor, nn
from transformers import StoppingCriteria

from janusflow.pipelines import prefix_cache
from janusflow.pipelines.answering import message
from janusflow.utils import finite


class Conversation:
    """Questions that follow each other; `pipe.conversation(pictures)` begins one.

    The keys and values of all that was said are kept, so that a question costs its own tokens and
    its answer's. They are computed anew once weights or adapters have changed (writes through
    `tensor.data` leave no trace and are not noticed). Threads wait for each other.
    """

    def __init__(self, pipe, pictures: Sequence = ()):
        self.pipe, self.pictures = pipe, list(pictures)
        self.turns: list[dict] = []
        self._turn = Lock()
        self._cache, self._ids, self._weights = None, [], ()

    def ask(self, question: str, *, max_new_tokens: int = 256, **settings) -> str:
        """The answer, greedy unless told otherwise; `settings` go to transformers' `generate`."""
        return self._answer(question, max_new_tokens=max_new_tokens, **settings)

    def stream(self, question: str, *, max_new_tokens: int = 256, **settings) -> Iterator[str]:
        """The answer's pieces as they come; who leaves early ends the answer with them."""
        stop = Stop()
        criteria = [stop, *(settings.pop("stopping_criteria", None) or [])]
        settings |= dict(max_new_tokens=max_new_tokens, stopping_criteria=criteria)
        try:
            yield from self.pipe.streamed(
                lambda pieces: self._answer(question, streamer=pieces, **settings), skip_prompt=True
            )
        finally:
            stop.left.set()

    def _answer(self, question: str, **settings) -> str:
        with self._turn:
            return self._take_turn(question, settings)

    def _take_turn(self, question: str, settings: dict) -> str:
        pipe, tokenizer = self.pipe, self.pipe.processor.tokenizer
        turns = [*self.turns, *message(question, [] if self.turns else self.pictures)]
        inputs = pipe.processor(turns).to(pipe.device)
        settings = {
            "do_sample": False,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        } | settings
        new = self._new(inputs, settings)
        answer = pipe.processor.decode(new, skip_special_tokens=True).strip()
        self.turns = [*turns, {"role": "assistant", "content": answer}]
        pipe.maybe_free_model_hooks()
        return answer

    @torch.no_grad()
    def _new(self, inputs, settings: dict) -> Tensor:
        """Ids of the answer to a prompt."""
        ids, places = inputs["input_ids"], inputs.get("image_token_mask")
        if self._weights != (now := state(self.pipe.model)):
            self._cache, self._ids, self._weights = None, [], now
        cache = self._read(ids, inputs.get("pixel_values"), places)
        self._cache, self._ids = None, []  # until it is known what an answer has added
        words = ids if places is None else ids.masked_fill(places.bool(), 0)
        mask = torch.ones_like(ids)
        new = prefix_cache.after(self.pipe.model, cache, words, mask, **finite.watched(settings))[0]
        self._cache = cache
        self._ids = [*ids[0].tolist(), *new.tolist()][: cache.get_seq_length()]
        return new

    def _read(self, ids: Tensor, pixels: Tensor | None, places: Tensor | None):
        """Keys and values of a beginning of the prompt that holds its pictures: the longest known,
        or one that ends behind the last picture.
        """
        tokens = ids[0].tolist()
        shown = [] if places is None else places[0].nonzero().flatten().tolist()
        first = shown[-1] + 1 if shown else 1
        known = min(prefix_cache.common([self._ids, tokens]), len(tokens) - 1)
        if self._cache is not None and known >= first:
            if surplus := self._cache.get_seq_length() - known:
                self._cache.crop(-surplus)
            return self._cache
        return prefix_cache.read(
            self.pipe.model, ids[:, :first], pixels, None if places is None else places[:, :first]
        )


class Stop(StoppingCriteria):
    """Ends an answer at its next token once somebody has left."""

    def __init__(self):
        self.left = Event()

    def __call__(self, input_ids: Tensor, *_args, **_kwargs) -> Tensor:
        return torch.full((len(input_ids),), self.left.is_set(), device=input_ids.device)


def state(model: nn.Module) -> tuple:
    """Differs once a weight was put in place or written to, or an adapter switched or scaled."""
    weights = [part for weight in model.parameters() for part in finite.plain(weight)]
    marks = [(w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights]
    adapters = [m for m in model.modules() if hasattr(type(m), "active_adapters")]
    return (*marks, *(f"{m.active_adapters} {getattr(m, 'scaling', '')}" for m in adapters))


class Reread(Conversation):
    """The same for Janus-Pro, whose `generate` reads the whole prompt for each question."""

    def _new(self, inputs, settings: dict) -> Tensor:
        return self.pipe.answer(inputs, **settings)[0]
