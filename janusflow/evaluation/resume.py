"""Making what is missing, in the same batches whatever is there already.

Rounding depends on what else is in a batch, so a batch is a slice of the plan: one of which
anything is missing is made whole, and only what was missing is kept. The batches are dealt out to
the processes that accelerate or torchrun started.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import groupby
from typing import TypeVar

from janusflow.utils import processes

Job = TypeVar("Job")
Made = TypeVar("Made")


def batches(
    todo: Sequence[Job], size: int, group: Callable[[Job], Hashable]
) -> Iterator[list[Job]]:
    """Slices of at most `size` within each run of one group, so that whole ones stay the same when
    a plan asks for more of each."""
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
    """Makes every batch of this process that lacks something, and keeps what it lacked.

    `among` is this process's number and how many share the work, by default all there are.
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
    """This process's number and how many there are."""
    if processes.world() == 1:
        return 0, 1
    state = _state()
    return state.process_index, state.num_processes


def wait() -> None:
    """Waits until every process has come here."""
    if share()[1] > 1:
        _state().wait_for_everyone()


def _state():
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise ImportError(
            "several processes need accelerate; pip install 'janusflow[train]'"
        ) from error
    return PartialState()
