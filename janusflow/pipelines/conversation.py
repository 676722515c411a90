"""A conversation about images whose keys and values are kept between questions."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from threading import Lock

import torch
from torch import Tensor, nn

from janusflow.models.janusflow.image_places import OURS
from janusflow.pipelines import prefix_cache
from janusflow.pipelines.answering import message
from janusflow.pipelines.streaming import Stop as Stop  # its place in release 0.1
from janusflow.pipelines.streaming import with_criteria
from janusflow.pipelines.token_draws import check_seed, drawing
from janusflow.utils import finite


class Conversation:
    """A sequence of questions about the same images; `pipe.conversation(images)` starts one.

    The keys and values of all earlier text are kept, so a question costs its own tokens and its
    answer's. They are recomputed once weights or adapters have changed (writes through
    `tensor.data` leave no trace and are not noticed). Threads wait for each other.
    """

    def __init__(self, pipe, images: Sequence = ()):
        self.pipe, self.images = pipe, list(images)
        self.turns: list[dict] = []
        self._turn = Lock()
        self._cache, self._ids, self._weights = None, [], ()

    def __copy__(self) -> Conversation:
        """Returns a conversation that goes on from here on its own."""
        again = type(self)(self.pipe, self.images)
        again.turns = copy.deepcopy(self.turns, {id(one): one for one in self.images})
        return again

    def __deepcopy__(self, _memo) -> Conversation:
        return self.__copy__()

    def __getstate__(self) -> dict:
        """Pickles the pipeline, the images and the turns; keys and values are computed again."""
        return dict(pipe=self.pipe, images=self.images, turns=self.turns)

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["pipe"], state["images"])
        self.turns = state["turns"]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.images)} images, {len(self.turns) // 2} answers)"

    def ask(
        self,
        question: str,
        *,
        max_new_tokens: int | None = None,
        seed: int | None = None,
        **settings,
    ) -> str:
        """Returns the answer, greedy by default; `settings` go to transformers' `generate`.

        `seed` makes a sampled answer (`do_sample=True`) reproducible.
        """
        _check_question(question)
        check_seed(seed)
        chosen = self._settings("ask", max_new_tokens, settings, seed)
        with self.pipe._call(), self._turn:
            return self._take_turn(question, chosen, seed)

    def stream(
        self,
        question: str,
        *,
        max_new_tokens: int | None = None,
        seed: int | None = None,
        **settings,
    ) -> Iterator[str]:
        """Yields the answer in pieces; leaving the iterator early ends the answer there."""
        _check_question(question)
        check_seed(seed)
        chosen = self._settings("stream", max_new_tokens, settings, seed)
        yield from self.pipe.streamed(
            lambda **own: self._after_others(question, with_criteria(chosen, own), seed),
            skip_prompt=True,
        )

    def _settings(self, method: str, max_new_tokens: int | None, settings: dict, seed) -> dict:
        own = {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
        chosen = self.pipe._settings(f"Conversation.{method}", settings | own, seed)
        if (self.pipe._told(chosen).get("num_return_sequences") or 1) > 1:
            raise ValueError(
                "a conversation continues from one answer; leave num_return_sequences out"
            )
        return chosen

    def _after_others(self, question: str, settings: dict, seed: int | None) -> None:
        """Runs a turn in a stream's thread, which gives up its place once nobody reads."""
        stop, streamer = settings["stopping_criteria"][0], settings["streamer"]
        while not self._turn.acquire(timeout=0.05):
            if stop.over:
                streamer.end()
                return
        try:
            self._take_turn(question, settings, seed)
        finally:
            self._turn.release()

    def _take_turn(self, question: str, settings: dict, seed: int | None) -> str:
        pipe = self.pipe
        turns = [*self.turns, *message(question, [] if self.turns else self.images, (OURS,))]
        inputs = pipe.processor(turns).to(pipe._execution_device)
        tokens = inputs["input_ids"].shape[1]
        pipe._limit_positions(tokens, "a conversation")
        settings = pipe._within(settings, tokens)
        with drawing(seed):
            new = self._new(inputs, settings)
        answer = pipe.processor.decode(new, skip_special_tokens=True).strip()
        self.turns = [*turns, {"role": "assistant", "content": answer}]
        return answer

    @torch.no_grad()
    def _new(self, inputs, settings: dict) -> Tensor:
        """Returns the ids of the answer; several rows (beams) read the whole prompt."""
        own = {k: v for k, v in settings.items() if k != "stopping_criteria"}
        if not prefix_cache.blind(self.pipe.model, own):
            self._cache, self._ids = None, []
            return self.pipe.answer(inputs, **settings)[0]
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
        """Returns keys and values of the longest known prefix that holds the prompt's images.

        Without one it computes the prefix up to the last image.
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


def _check_question(question) -> None:
    """Raises ValueError for an empty question."""
    if not isinstance(question, str) or not question.strip():
        raise ValueError(f"the question is {question!r:.60}; expected a text that is not empty")


def state(model: nn.Module) -> tuple:
    """Returns a value that changes with any weight, and with an adapter's switch or scale."""
    weights = [part for weight in model.parameters() for part in finite.plain(weight)]
    marks = [(w.data_ptr(), 0 if w.is_inference() else w._version) for w in weights]
    adapters = [m for m in model.modules() if hasattr(type(m), "active_adapters")]
    return (*marks, *(f"{m.active_adapters} {getattr(m, 'scaling', '')}" for m in adapters))


class Reread(Conversation):
    """The same interface for Janus-Pro, which rereads all for each question."""

    def _new(self, inputs, settings: dict) -> Tensor:
        return self.pipe.answer(inputs, **settings)[0]
