"""The best of several images: what a verifier says of each, by name or as any function.

A verifier is a function (pipe, images, prompts) -> one score an image, higher is better, and is
found by `pipe(prompt, best_of=4, verifier="name")`. A user's own comes as it is, without `pipe`:
(images, prompts) -> scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from PIL import Image
from torch import Tensor

from janusflow.pipelines.answering import likelihoods, message
from janusflow.utils.keywords import nearest

VERIFIERS: dict[str, Callable] = {}
QUESTION = "describe the picture."  # which the packaged models answer by a prompt


def verifier(score: Callable) -> Callable:
    """Registers a function under its name."""
    VERIFIERS[score.__name__] = score
    return score


@verifier
def own(pipe, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
    """Mean log-likelihood per token of the prompt as the model's own description of the image."""
    asked = [message(QUESTION, [image]) for image in images]
    return [-loss for loss, _ in likelihoods(pipe, asked, list(prompts))]


def scorer(pipe, chosen: str | Callable) -> Callable[[list, list[str]], list[float]]:
    """(images, prompts) -> one finite score an image; ValueError for an unknown name, and for
    scores that are none.
    """
    if not callable(chosen) and chosen not in VERIFIERS:
        hint = nearest(str(chosen), VERIFIERS) or f"; choose one of {', '.join(VERIFIERS)}"
        raise ValueError(
            f"no verifier named {chosen!r:.60}{hint}, or give a function of (images, prompts)"
        )

    def scores(images: list, prompts: list[str]) -> list[float]:
        found = (
            chosen(images, prompts)
            if callable(chosen)
            else VERIFIERS[chosen](pipe, images, prompts)
        )
        found = torch.as_tensor(found, dtype=torch.float64).flatten().tolist()
        if len(found) != len(images) or any(score != score for score in found):
            raise ValueError(
                f"the verifier gave {len(found)} scores for {len(images)} images, or NaN; expected "
                "one number an image"
            )
        return found

    return scores


def best(draws: Iterable[Tensor], score: Callable) -> tuple[Tensor, list[float]]:
    """Of the draws (B, ...) for each row the one with the highest score, and these scores; the
    earlier one where two are equal.
    """
    draws = iter(draws)
    kept = next(draws)
    scores = score(kept)
    for new in draws:
        found = score(new)
        better = torch.tensor([a > b for a, b in zip(found, scores, strict=True)])
        kept = torch.where(better.to(kept.device).view(-1, *[1] * (kept.ndim - 1)), new, kept)
        scores = [max(pair) for pair in zip(found, scores, strict=True)]
    return kept, scores
