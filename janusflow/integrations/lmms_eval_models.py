"""JanusFlow and Janus-Pro as models of lmms-eval 0.7.

    lmms-eval --model janusflow --model_args pretrained=janusflow/scenes --tasks pope_adv

Greedy answers do not depend on their batch; sampled ones (temperature above 0) do.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import torch
from lmms_eval.api.instance import GenerationResult, Instance
from lmms_eval.api.model import lmms
from loguru import logger
from PIL import Image
from tqdm import tqdm

from janusflow.pipelines import image_io
from janusflow.pipelines.answering import ask, likelihoods, message
from janusflow.utils import images

MARKS = ("<image>",)  # how tasks of lmms-eval say where an image stands in a text
LONGEST = 512  # new tokens where a task names no limit, as in the published example
SETTINGS = ("max_new_tokens", "num_beams")  # go to transformers' `generate` as they are
SAMPLING = ("temperature", "top_p", "top_k")  # likewise, where the temperature is above 0
KNOWN = {*SETTINGS, *SAMPLING, "do_sample", "until"}


class Janus(lmms):
    """Either model family, for tasks with images and a text."""

    is_simple = True

    def __init__(
        self,
        pretrained: str = "janusflow/scenes",
        device: str | None = None,
        dtype: str = "auto",
        batch_size: int | str = 1,
        vae: str | None = None,
        system_prompt: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        """Loads `pretrained`: a packaged model, a folder or a hub id.

        `vae` is JanusFlow's autoencoder if the folder has none; `system_prompt` replaces the
        checkpoint's. Raises ValueError for a batch size that is not a number.
        """
        super().__init__()
        if not str(batch_size).isdecimal() or int(batch_size) < 1 or max_batch_size is not None:
            raise ValueError(
                f"batch_size is {batch_size!r}, max_batch_size {max_batch_size!r}; give "
                "--batch_size a number of at least 1 and leave --max_batch_size out"
            )
        self.batch_size = int(batch_size)
        self.pipe = image_io.load(pretrained, vae, device or _own_device(), dtype)
        if system_prompt is not None:
            processor = self.pipe.processor
            processor.tags = replace(processor.tags, system_prompt=system_prompt)

    @property
    def device(self) -> torch.device:
        return self.pipe.device

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Returns the answers in the order of the requests."""
        answers: list[str] = [""] * len(requests)
        for places in self._batches([_settings_of(r) for r in requests], "answers"):
            batch = [requests[i] for i in places]
            given = _settings_of(batch[0])
            texts = ask(self.pipe, [self._conversation(r) for r in batch], **generation(given))
            for place, request, text in zip(places, batch, texts, strict=True):
                answers[place] = cut(text, given.get("until"))
                self.cache_hook.add_partial(
                    "generate_until", (request.args[0], given), answers[place]
                )
        return answers

    def loglikelihood(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Returns per request the mean of -ln p over the continuation's tokens, and whether it is
        greedy.

        lmms-eval expects this sign and the mean: its multiple choice takes the smallest. The pair
        is wrapped, because the evaluator of 0.7.3 converts a bare one to text.
        """
        found = [GenerationResult("")] * len(requests)
        for places in self._batches([{} for _ in requests], "likelihoods"):
            batch = [requests[i] for i in places]
            told = [self._continuation(r) for r in batch]
            scores = likelihoods(self.pipe, [self._conversation(r) for r in batch], told)
            for place, score in zip(places, scores, strict=True):
                found[place] = GenerationResult(score)
        return found

    def generate_until_multi_round(self, requests) -> list[str]:
        raise NotImplementedError(
            "the janusflow plugin answers questions of one round; choose tasks whose output_type "
            "is generate_until, loglikelihood or multiple_choice"
        )

    def _batches(self, kinds: Sequence[dict], what: str) -> Iterator[list[int]]:
        """Yields the indices of requests with equal settings, at most `batch_size` at a time."""
        keys = [repr(sorted(kind.items())) for kind in kinds]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        with tqdm(total=len(keys), desc=what, disable=self.rank != 0) as bar:
            for _, same in groupby(order, key=keys.__getitem__):
                places = list(same)
                for start in range(0, len(places), self.batch_size):
                    yield (part := places[start : start + self.batch_size])
                    bar.update(len(part))

    def _doc(self, request: Instance) -> dict:
        number, task, split = request.args[3:6]
        return self.task_dict[task][split][number]

    def _conversation(self, request: Instance) -> list[dict]:
        text, _, visuals = request.args[:3]
        shown = visuals(self._doc(request)) if visuals else None
        return message(text, [image(one) for one in shown or ()], MARKS)

    def _continuation(self, request: Instance) -> str:
        told = request.args[1]
        return told if isinstance(told, str) else str(told(self._doc(request)))


class JanusChat(Janus):
    """Either model family, for tasks that use messages; generation only, as in lmms-eval."""

    is_simple = False

    def _conversation(self, request: Instance) -> list[dict]:
        turns: Callable = request.args[1]
        return [
            {"role": turn["role"], "content": [_part(part) for part in turn["content"]]}
            for turn in turns(self._doc(request))
        ]


def _settings_of(request: Instance) -> dict:
    """Returns a task's generation settings, which come second or third, by the kind of model."""
    return next(arg for arg in request.args[1:3] if isinstance(arg, dict))


def generation(given: dict) -> dict:
    """Returns a task's settings as arguments of `generate`; temperature 0 does not sample."""
    for name in given.keys() - KNOWN:
        logger.warning(f"janusflow has no use for the task's setting {name!r}")
    settings = {"max_new_tokens": LONGEST} | {k: given[k] for k in SETTINGS if given.get(k)}
    if given.get("do_sample") is False or not given.get("temperature"):
        return settings
    sampling = {k: given[k] for k in SAMPLING if given.get(k)}
    return settings | sampling | {"do_sample": True}


def cut(text: str, until: str | Sequence[str] | None) -> str:
    """Returns the text before the first of the stop texts."""
    for end in [until] if isinstance(until, str) else until or ():
        text = text.split(end)[0] if end else text
    return text.strip()


def image(visual) -> Image.Image:
    """Returns an image, given as such or by its path. Raises ValueError for video or audio."""
    if isinstance(visual, Image.Image):
        return visual
    if isinstance(visual, str | os.PathLike):
        return images.read(visual)
    raise ValueError(
        f"a task shows a {type(visual).__name__}; JanusFlow and Janus-Pro read images, so choose "
        "tasks of images"
    )


def _part(part: dict) -> dict:
    if part["type"] == "text":
        return part
    if part["type"] != "image":
        raise ValueError(f"a task shows a {part['type']}; choose tasks of images")
    return {"type": "image", "image": image(part["url"])}


def _own_device() -> str:
    """Returns this process's GPU if accelerate started several, else the best device."""
    several = torch.cuda.device_count() > 1 and "LOCAL_RANK" in os.environ
    return f"cuda:{os.environ['LOCAL_RANK']}" if several else "auto"
