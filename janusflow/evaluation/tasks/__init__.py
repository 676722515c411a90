"""Evaluation tasks, one per file; importing a file registers its task."""

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
from janusflow.utils.keywords import choice

__all__ = ["TASKS", "find", "image_task"]


def find(name: str) -> Task:
    """Returns the task of that name. Raises ValueError, suggesting a name."""
    choice("no task named", name, TASKS)
    return TASKS[name]
