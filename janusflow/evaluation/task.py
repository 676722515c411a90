"""The interface of evaluation tasks: items with scores, and the functions that make a task."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from janusflow.evaluation.plan import Plan

# fields of a plan on which an answer of the network depends, and those of an image
ANSWER_FIELDS = ("dtype", "device", "batch", "side")
IMAGE_FIELDS = (
    "sampler",
    "grid",
    "steps",
    "guidance",
    "generated_by",
    "reuse",
    "best_of",
    "verifier",
    "tokenizer",
    *ANSWER_FIELDS,
)
OFFICIAL_FIELDS = ("seeds", *IMAGE_FIELDS, "digests")  # of images of prompts in the user's files


@dataclass(frozen=True)
class Item:
    """One image or answer with a score per measure, 0 or 1 or a fraction.

    `cluster` is shared by items that are not independent; `said` is what was found in place of what
    was asked for.
    """

    split: str
    group: str  # category or template
    index: int
    seed: int
    cluster: str
    scores: dict[str, bool | float]
    wanted: str
    said: str


Sources = dict[str, list[Item]]


def none(paths: dict[str, str]) -> dict[str, str]:
    """The default for tasks that read no files of the user."""
    if paths:
        name = next(iter(paths)).replace("pictures", "images")
        raise ValueError(f"--{name} with a path is for other tasks; leave it out, or name a --task")
    return {}


@dataclass(frozen=True)
class Task:
    """An evaluation task.

    - `make(pipe, plan, folder, settings)` fills the folder with what is missing; `pipe()` loads the
      model.
    - `score(plan, folder)` reads it and returns the items of each source, the model's under
      "model", and additions to the protocol.
    - `extra(items)` returns further numbers of a group: each a number, or a dictionary of score,
      low and high.
    - `fields` of the plan are its protocol; a folder holds answers for one value of each.
    """

    make: Callable[[Callable, Plan, Path, dict], None]
    score: Callable[[Plan, Path], tuple[Sources, dict]]
    fields: tuple[str, ...]
    extra: Callable[[Sequence[Item]], dict] = lambda _items: {}
    images: Callable[[dict], Path] | None = None  # where the image of a report's item lies
    note: str = ""  # what the columns of its tables mean
    inputs: Callable[[dict[str, str]], dict[str, str]] = none  # digests of the paths it reads
    whole: Callable[[Plan, Path], dict] | None = None  # scores of a set that has no items
    next: str = ""  # what is left to do where there are no scores yet


TASKS: dict[str, Task] = {}


def register(name: str, task: Task) -> Task:
    """Registers a task as `--task NAME`; `tasks.image_task` makes one in a few lines."""
    TASKS[name] = task
    return task
