"""Resumes an interrupted evaluation with bitwise identical results.

Rounding depends on the batch, so batches are fixed slices of the plan: if anything of a batch is
missing, the whole batch is computed and only the missing part is saved. The batches are divided
among the processes of accelerate or torchrun.
"""

import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import groupby
from typing import TypeVar

from janusflow.utils import processes
from janusflow.utils.extras import needed

Job = TypeVar("Job")
Made = TypeVar("Made")


def batches(
    todo: Sequence[Job], size: int, group: Callable[[Job], Hashable]
) -> Iterator[list[Job]]:
    """Returns slices of at most `size` within each run of one group.

    Full batches stay the same when a plan asks for more images of each group.
    """
    for _, part in groupby(todo, group):
        jobs = list(part)
        yield from (jobs[start : start + size] for start in range(0, len(jobs), size))


def fill(
    batches: Sequence[Sequence[Job]],
    missing: Callable[[Job], bool],
    make: Callable[[Sequence[Job]], Sequence[Made]],
    keep: Callable[[list[tuple[Job, Made]]], None],
    name: str,
    among: tuple[int, int] | None = None,
) -> None:
    """Computes every batch of this process that lacks something, and saves what was missing.

    `among` is this process's number and how many share the work, by default all processes.
    """
    from tqdm import tqdm

    rank, world = among or share()
    mine = list(batches)[rank::world]
    quiet = rank > 0 or not sys.stderr.isatty()
    with tqdm(total=sum(map(len, mine)), desc=name, disable=quiet) as bar:
        for batch in mine:
            wanted = [missing(job) for job in batch]
            if any(wanted):
                made = zip(batch, make(batch), wanted, strict=True)
                keep([(job, answer) for job, answer, lacked in made if lacked])
            bar.update(len(batch))


def share() -> tuple[int, int]:
    """Returns this process's number and the number of processes."""
    if processes.world() == 1:
        return 0, 1
    state = _state()
    return state.process_index, state.num_processes


def wait() -> None:
    """Waits until every process has reached this point."""
    if share()[1] > 1:
        _state().wait_for_everyone()


def _state():
    with needed("train", "a run of several processes"):
        from accelerate import PartialState
    return PartialState()
