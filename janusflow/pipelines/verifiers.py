"""Verifiers for best-of-n sampling: functions that score images for their prompts.

A verifier is a function (pipe, images, prompts) -> one score per image, where higher is better;
`pipe(prompt, best_of=4, verifier="name")` uses it. A function that is not registered takes (images,
prompts), without `pipe`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from PIL import Image
from torch import Tensor

from janusflow.pipelines.answering import likelihoods, message
from janusflow.utils.keywords import nearest
from samplers.callables import check_arguments

VERIFIERS: dict[str, Callable] = {}
QUESTION = "describe the picture."  # which the packaged models answer by a prompt


def verifier(score: Callable) -> Callable:
    """A decorator that registers a verifier under its name."""
    VERIFIERS[score.__name__] = score
    return score


@verifier
def own(pipe, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
    """Scores images by the mean log-likelihood per token of the prompt as their description."""
    asked = [message(QUESTION, [image]) for image in images]
    return [-loss for loss, _ in likelihoods(pipe, asked, list(prompts))]


def scorer(pipe, chosen: str | Callable) -> Callable[[list, list[str]], list[float]]:
    """Returns a function (images, prompts) -> one finite score per image.

    Raises ValueError for an unknown name, and when scores are missing or not finite.
    """
    if not callable(chosen) and chosen not in VERIFIERS:
        hint = nearest(str(chosen), VERIFIERS) or f"; choose one of {', '.join(VERIFIERS)}"
        raise ValueError(
            f"no verifier named {chosen!r:.60}{hint}, or give a function of (images, prompts)"
        )

    if callable(chosen):
        check_arguments(chosen, "verifier", "images", "prompts")

    def scores(images: list, prompts: list[str]) -> list[float]:
        found = (
            chosen(images, prompts)
            if callable(chosen)
            else VERIFIERS[chosen](pipe, images, prompts)
        )
        try:
            found = torch.as_tensor(found, dtype=torch.float64).flatten().tolist()
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(
                f"the verifier returned {type(found).__name__}; return one number for each image"
            ) from None
        if len(found) != len(images) or any(score != score for score in found):
            raise ValueError(
                f"the verifier returned {len(found)} scores for {len(images)} images, or NaN; "
                "return one finite number for each image"
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
        kept = torch.where(better.to(kept.device).view(-1, *[1] * (kept.ndim - 1)), new, kept)
        scores = [max(pair) for pair in zip(found, scores, strict=True)]
    return kept, scores
