"""A pipeline's answers: complete, as a stream, or in a conversation."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from janusflow.models.janusflow.chat_format import as_images, is_one, listed
from janusflow.pipelines import answer_settings, streaming
from janusflow.pipelines.conversation import Conversation
from janusflow.pipelines.generators import warn_unused
from janusflow.pipelines.token_draws import check_seed
from janusflow.utils.keywords import refuse_unknown

GREEDY = "answers are greedy without do_sample=True; give that too, or leave seed out"
OWN = ("images", "stream", "seed", "adapters")  # keywords of `chat` beside those of `generate`
Images = Sequence | Image.Image | np.ndarray | Tensor | None  # one image, or several


class Chat:
    """A mixin of pipelines with a `processor` and `answer(inputs, **settings)` -> ids."""

    echoes = False  # whether the model's `generate` gives the prompt back before the answer
    for_images: Sequence[str] = ()  # settings in generation_config.json that answers do not read
    conversation_class: type[Conversation] = Conversation

    @overload
    def chat(
        self, prompt: str | Sequence, images: Images = None, *, stream: Literal[True], **settings
    ) -> Iterator[str]: ...
    @overload
    def chat(
        self, prompt: str, images: Images = None, *, stream: Literal[False] = False, **settings
    ) -> str: ...
    @overload
    def chat(
        self, prompt: Sequence, images: Images = None, *, stream: bool = False, **settings
    ) -> str | list: ...
    def chat(
        self,
        prompt: str | Sequence,
        images: Images = None,
        *,
        stream: bool = False,
        max_new_tokens: int | None = None,
        seed: int | None = None,
        adapters=None,
        **settings,
    ) -> str | list | Iterator[str]:
        """Answers a question or a list of messages about no, one or several images.

        A list of questions or conversations, with a list of images for each, returns a list of
        answers; `num_return_sequences` above 1 returns a list per question. `stream=True` returns
        an iterator over the pieces of one answer; leaving it stops the computation. `adapters` hold
        for this call, as in `pipe(prompt)`. `seed` makes sampled answers (`do_sample=True`)
        reproducible; answer i draws from seed + i. Further settings are those of transformers'
        `generate`.
        By default, and without a generation configuration beside the weights, the answer is greedy
        and at most 512 tokens long; a warning says if that cuts it.
        """
        prompt, one = listed(prompt), is_one(prompt)
        _check_images(images, one)
        inputs = self.processor(prompt, images=images).to(self._execution_device)
        self._limit_positions(inputs["input_ids"].shape[1], "a question")
        self._check_ids(inputs["input_ids"])
        if max_new_tokens is not None:
            settings["max_new_tokens"] = max_new_tokens
        check_seed(seed)
        if stream:
            _check_stream(one, settings)
        chosen = self._settings(f"{type(self).__name__}.chat", settings, seed, OWN)
        chosen = self._within(chosen, inputs["input_ids"].shape[1])
        if stream:
            return self.streamed(
                lambda **own: self.answer(
                    inputs, seed=seed, **streaming.with_criteria(chosen, own)
                ),
                self.echoes,
                adapters,
            )
        with self._call(adapters):
            ids = self.answer(inputs, seed=seed, **chosen)
        self._warn_if_cut(ids, settings, chosen)
        answers = [text.strip() for text in self.processor.batch_decode(ids)]
        count = len(answers) // len(inputs["input_ids"])
        if count > 1:
            answers = [answers[i : i + count] for i in range(0, len(answers), count)]
        return answers[0] if one else answers

    def conversation(self, images: Sequence = ()) -> Conversation:
        """Starts a conversation about no, one or several images, in which each image and text is
        read once.

        `talk = pipe.conversation([image])`, then `talk.ask("how many shapes are there?")`.
        """
        _check_images(images, True)
        return self.conversation_class(self, as_images(images))

    def _settings(
        self, function: str, given: Mapping, seed: int | None = None, own: Sequence[str] = ("seed",)
    ) -> dict:
        """Returns the settings for `generate`: the caller's, and our defaults if neither he nor the
        files give any. Warns of a seed that greedy answers do not use. `own` are the function's own
        keywords, which may have been meant by one that is refused.

        Raises TypeError for a setting that `generate` does not have or that makes no sense for
        text, and ValueError for one without effect.
        """
        tokenizer = self.processor.tokenizer
        refuse_unknown(function, given, [*own, *answer_settings.generate_keywords(), "generator"])
        given = answer_settings.read(given, tokenizer)
        files = getattr(self.model, "generation_config", None)
        if getattr(files, "stop_strings", None):
            given.setdefault("tokenizer", tokenizer)
        sources = [source for source in (given.get("generation_config"), files) if source]
        answer_settings.check_taken(sources, self.for_images)
        answer_settings.check_sampling(given, sources)
        told = any(getattr(s, "max_length", None) is not None for s in sources)
        longest = "max_length" if told or "max_length" in given else "max_new_tokens"
        defaults = {
            "do_sample": False,
            longest: answer_settings.LONGEST,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        said = {k for k in defaults if any(getattr(s, k, None) is not None for s in sources)}
        missing = {k: v for k, v in defaults.items() if k not in said}
        if seed is not None and not answer_settings.sampled(given, sources):
            warn_unused(None, seed, GREEDY, stacklevel=4)
        return answer_settings.filled(given, missing)

    def _told(self, settings: Mapping) -> dict:
        return answer_settings.told(settings, getattr(self.model, "generation_config", None))

    def _within(self, settings: Mapping, prompt: int) -> dict:
        return answer_settings.within(settings, self._told(settings), prompt, self.positions)

    def _warn_if_cut(self, ids: Tensor, given: Mapping, chosen: Mapping) -> None:
        """Warns if an answer was cut off at a length that the caller did not choose."""
        most = chosen.get("max_new_tokens", answer_settings.LONGEST)
        told = given.keys() & {"max_new_tokens", "max_length", "generation_config"}
        if told and most == given.get("max_new_tokens", most):
            return
        ends = torch.as_tensor(self.processor.tokenizer.eos_token_id, device=ids.device)
        if ids.shape[1] >= most and not bool(torch.isin(ids, ends).any(1).all()):
            why = "the model has no more positions" if told else "give a larger max_new_tokens"
            warnings.warn(f"an answer was cut after {ids.shape[1]} tokens; {why}", stacklevel=3)

    def streamed(self, answer: Callable, skip_prompt: bool, adapters=None) -> Iterator[str]:
        """Yields the pieces of text that `answer(streamer=..., stopping_criteria=[...])` produces.

        It runs in its own thread, which stops at the next token once the iterator is closed or the
        thread that reads it has ended.
        """

        def call(**own) -> None:
            with self._call(adapters):
                answer(**own)

        return streaming.stream(call, self.processor.tokenizer, skip_prompt)


def _check_images(images, one: bool) -> None:
    """Raises ValueError for an image that is None, which would be ignored silently."""
    if one and isinstance(images, list | tuple) and any(image is None for image in images):
        raise ValueError("images holds None; give an image for each, or images=None for no image")


def _check_stream(one: bool, settings: Mapping) -> None:
    if settings.get("streamer") is not None:
        raise ValueError("stream=True creates its own streamer; leave out streamer or stream")
    several = settings.get("num_return_sequences") not in (None, 1)
    if not one or several:
        raise ValueError(
            "a stream is of one answer as it is written; ask one question without "
            "num_return_sequences, or leave stream out"
        )
