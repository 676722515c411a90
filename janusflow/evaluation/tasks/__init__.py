"""Evaluation tasks, one per file; importing a file registers its task."""

from difflib import get_close_matches

from janusflow.evaluation.task import TASKS, Task
from janusflow.evaluation.tasks import (  # noqa: F401 (they register theirs)
    distances,
    geneval2,
    judge,
    official_results,
    round_trip,
    scenes,
    soft_tifa,
    symmetric,
    telephone,
    vqa,
)
from janusflow.evaluation.tasks.per_image import image_task

__all__ = ["TASKS", "find", "image_task"]


def find(name: str) -> Task:
    """Returns the task of that name. Raises ValueError, suggesting a name."""
    if name in TASKS:
        return TASKS[name]
    near = get_close_matches(name, TASKS, 1)
    hint = f"did you mean {near[0]!r}? Choose" if near else "choose"
    raise ValueError(f"no task named {name!r:.80}; {hint} one of {', '.join(TASKS)}")
