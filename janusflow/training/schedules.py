"""The learning rate's schedule, one for all trainers."""

from __future__ import annotations

import math
from typing import Protocol

SCHEDULES = ("constant", "cosine", "linear")


class Plan(Protocol):
    """What a schedule reads of a training's numbers."""

    lr: float
    warmup: int
    steps: int
    decay_from: float


def learning_rate(plan: Plan, step: int, schedule: str | None = None) -> float:
    """The rate at an optimizer's step, counted from 0; `plan.schedule` unless told."""
    return plan.lr * share(
        step, plan.steps, plan.warmup, schedule or plan.schedule, plan.decay_from
    )


def share(
    step: int, steps: int, warmup: int, schedule: str = "constant", decay_from: float = 0.0
) -> float:
    """Of the full rate: linearly up over `warmup` steps, then constant, or from the share
    `decay_from` of the steps on down to zero, linearly or as half a cosine.
    """
    rising = min(1.0, (step + 1) / max(1, warmup))
    start = decay_from * steps
    if schedule == "constant" or step < start or start >= steps:
        return rising
    left = (steps - step) / (steps - start)
    if schedule == "cosine":
        left = 0.5 - 0.5 * math.cos(math.pi * left)
    return min(rising, left)
