"""Verifiers for best-of-n sampling: functions that score images for their prompts.

A verifier is a function (pipe, images, prompts) -> one score per image, where higher is better, or
None for a prompt that it does not know; `pipe(prompt, best_of=4, verifier="name")` uses it. A
function that is not registered takes (images, prompts), without `pipe`.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import import_module

import torch
from PIL import Image
from torch import Tensor

from janusflow.pipelines.answering import likelihoods, message, probabilities
from janusflow.utils.keywords import choice
from samplers.callables import check_arguments
from samplers.fields import per_sample

LEAST = 1e-30  # of p(yes) + p(no)
VERIFIERS: dict[str, Callable] = {}
ELSEWHERE = {"soft_tifa": "janusflow.evaluation.tasks.soft_tifa"}  # loaded when it is named
DESCRIBE = "describe the picture."
MATCH = 'Does this figure show "{}"? Please answer yes or no.'


def verifier(score: Callable) -> Callable:
    """A decorator that registers a verifier under its name."""
    VERIFIERS[score.__name__] = score
    return score


def find(name: str) -> Callable:
    """Returns the verifier of a name. Raises ValueError if there is none."""
    if name in ELSEWHERE:
        import_module(ELSEWHERE[name])
    if name not in VERIFIERS:
        known = dict.fromkeys([*VERIFIERS, *ELSEWHERE])
        choice("no verifier named", name, known, ", or give a function of (images, prompts)")
    return VERIFIERS[name]


@verifier
def own(pipe, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
    """Scores images by the verifier that config.json names (`verifier`), or by `caption`.

    `caption` also scores the images of prompts that the named verifier does not know.
    """
    named = getattr(pipe.model.config, "verifier", None)
    scores = list(find(named)(pipe, images, prompts)) if named else [None] * len(images)
    rest = [i for i, score in enumerate(scores) if score is None]
    if rest:
        others = caption(pipe, [images[i] for i in rest], [prompts[i] for i in rest])
        for i, score in zip(rest, others, strict=True):
            scores[i] = score
    return scores


@verifier
def vqa_score(pipe, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
    """Scores images by p(yes) / (p(yes) + p(no)), the answer whether they show the prompt.

    The question is the paper's, which general models understand and the packaged ones do not.
    Lin et al. 2024 (arXiv 2404.01291), there p(yes) alone.
    """
    pairs = zip(images, prompts, strict=True)
    asked = [message(MATCH.replace("{}", text), [image]) for image, text in pairs]
    yes, no = (probabilities(pipe, asked, [answer] * len(asked)) for answer in ("Yes", "No"))
    return [a / max(a + b, LEAST) for a, b in zip(yes, no, strict=True)]


@verifier
def caption(pipe, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
    """Scores images by the mean log-likelihood per token of the prompt as their description."""
    asked = [message(DESCRIBE, [image]) for image in images]
    return [-loss for loss, _ in likelihoods(pipe, asked, list(prompts))]


def scorer(pipe, chosen: str | Callable) -> Callable[[list, list[str]], list[float]]:
    """Returns a function (images, prompts) -> one finite score per image.

    Raises ValueError for an unknown name, and when scores are missing or not finite.
    """
    rate = chosen if callable(chosen) else partial(find(chosen), pipe)

    if callable(chosen):
        check_arguments(chosen, "verifier", "images", "prompts")

    def scores(images: list, prompts: list[str]) -> list[float]:
        found = rate(images, prompts)
        if isinstance(found, list) and None in found:
            text = prompts[found.index(None)]
            raise ValueError(
                f"the verifier {chosen!r:.60} does not know the prompt {text!r:.80}; choose own, "
                "caption or vqa_score"
            )
        try:
            found = torch.as_tensor(found, dtype=torch.float64).flatten().tolist()
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(
                f"the verifier returned {type(found).__name__}; return one number for each image"
            ) from None
        if len(found) != len(images) or not all(map(math.isfinite, found)):
            raise ValueError(
                f"the verifier returned {len(found)} scores for {len(images)} images, or NaN or "
                "infinity; return one finite number for each image"
            )
        return found

    return scores


def best(draws: Iterable[Tensor], score: Callable) -> tuple[Tensor, list[float]]:
    """Returns each row's candidate (B, ...) with the highest score, and that score."""
    draws = iter(draws)
    kept = next(draws)
    scores = score(kept)
    for new in draws:
        found = score(new)
        better = torch.tensor([a > b for a, b in zip(found, scores, strict=True)])
        kept = torch.where(per_sample(better.to(kept.device), kept), new, kept)
        scores = [max(pair) for pair in zip(found, scores, strict=True)]
    return kept, scores
