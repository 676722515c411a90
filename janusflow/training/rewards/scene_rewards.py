"""Rewards of the small world by its exact scorer and its second reader."""

from __future__ import annotations

import torch
from torch import Tensor

from janusflow.scenes import second_reader
from janusflow.scenes.scorer import MISSHAPEN, Score
from janusflow.scenes.world import Prompt
from janusflow.training.rewards.reward import Graded, reward


@reward(batched=True)
def strict(graded: Graded) -> Tensor:
    """1 where exactly what was asked for is there, else 0."""
    return torch.tensor([float(one.strict) for one in graded.scores])


@reward(batched=True)
def lenient(graded: Graded) -> Tensor:
    """1 where at least what was asked for is there, as GenEval counts."""
    return torch.tensor([float(one.lenient) for one in graded.scores])


@reward(batched=True)
def parts(graded: Graded) -> Tensor:
    """The share of what was asked for that is there: each object by itself, in [0, 1].

    Matched objects over the larger of those asked for and those found, 0.8 of it, and the relation,
    or where none was asked for the whole being right, 0.2.
    """
    pairs = zip(graded.scores, graded.requests, strict=True)
    return torch.tensor([_share(one, request) for one, request in pairs])


def _share(one: Score, request: Prompt) -> float:
    asked = sum(need.count for need in request.needs)
    right = sum(
        min(need.count, sum(need.matches(obj) for obj in one.found)) for need in request.needs
    )
    whole = one.lenient if request.relation else one.strict
    return 0.8 * right / max(asked, len(one.found)) + 0.2 * whole


@reward(name="second_reader", batched=True)
def by_second_reader(graded: Graded) -> Tensor:
    """1 where the second reader, which shares no code with the scorer, finds what the text says."""
    pairs = zip(graded.pixels, graded.requests, strict=True)
    return torch.tensor([float(second_reader.strict(i.astype(float), r.text)) for i, r in pairs])


@reward(batched=True)
def clean(graded: Graded) -> Tensor:
    """How well drawn the objects are, whatever was asked for: 1 less the mean share of their pixels
    that no shape explains, over the share at which the scorer gives up; 0 where there is nothing.
    """
    return torch.tensor([_cleanness(one) for one in graded.scores])


def _cleanness(one: Score) -> float:
    rest = [min(1.0, obj.residual / MISSHAPEN) for obj in one.found]
    return 1 - sum(rest) / len(rest) if rest else 0.0
