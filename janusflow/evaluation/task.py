"""What every task deals in: answers with scores, and the three functions that make a task."""

from __future__ import annotations

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
    "tokenizer",
    *ANSWER_FIELDS,
)


@dataclass(frozen=True)
class Item:
    """One image or answer: right or wrong by each measure, or a share between. `cluster` is
    shared by what is not independent; `said` is what was found where something else was wanted.
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
    """For tasks that read no files of the user's."""
    if paths:
        raise ValueError(f"--{next(iter(paths))} with a path is for other tasks; leave it out")
    return {}


@dataclass(frozen=True)
class Task:
    """`make(pipe, plan, folder, settings)` fills the folder with what is missing; `pipe()` loads.

    `score(plan, folder)` reads it: items of each source, the model's under "model", and what else
    belongs into the protocol. `extra(items)` are further numbers of a group, beside its scores:
    each a number, or a dictionary of score, low and high. `fields` of the plan are its protocol,
    and a folder holds answers for one value of each only.
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
    """Makes a task known as `--task NAME`; see `tasks.image_task` for one in a few lines."""
    TASKS[name] = task
    return task
