"""Learning-rate schedules, shared by all trainers."""

import math
from typing import Protocol

SCHEDULES = ("constant", "cosine", "linear")


class RateSettings(Protocol):
    """The settings that a schedule reads."""

    lr: float
    warmup: int
    steps: int
    decay_from: float


def learning_rate(plan: RateSettings, step: int, schedule: str | None = None) -> float:
    """Returns the learning rate at optimizer step 0, 1, ...; `schedule` defaults to `plan`'s."""
    return plan.lr * share(
        step, plan.steps, plan.warmup, schedule or plan.schedule, plan.decay_from
    )


def share(
    step: int, steps: int, warmup: int, schedule: str = "constant", decay_from: float = 0.0
) -> float:
    """Returns the fraction of the peak learning rate.

    It rises linearly over `warmup` steps and then stays constant, or falls to zero from the
    fraction `decay_from` of the steps on, linearly or as half a cosine.
    """
    rising = min(1.0, (step + 1) / max(1, warmup))
    start = decay_from * steps
    if schedule == "constant" or step < start or start >= steps:
        return rising
    left = (steps - step) / (steps - start)
    if schedule == "cosine":
        left = 0.5 - 0.5 * math.cos(math.pi * left)
    return min(rising, left)
