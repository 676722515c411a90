"""Batches drawn by other processes while the network works on the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch.utils.data import DataLoader, Dataset

from janusflow.data.samples import Sample


def ahead(draw: Callable[[int], object], steps: range, workers: int) -> Iterator:
    """draw(step) for every step in order, `workers` processes in front; 0 draws here.

    `draw` goes to the processes by pickle and must depend on the step alone.
    """
    if not workers:
        return map(draw, steps)
    loader = DataLoader(
        _Steps(draw),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        multiprocessing_context="spawn",  # a process with threads or a GPU must not be forked
        worker_init_fn=_begin,
    )
    return iter(loader)


class Ahead:
    """A source of batches whose `draw` gives what that of `data` gives, drawn ahead.

    `counts(step)` are the samples of each kind in a batch. Processes start at the first draw, and
    anew where a step is asked out of turn.
    """

    def __init__(self, data, counts: Callable[[int], dict[str, int]], steps: int, workers: int):
        self.data, self.counts, self.steps, self.workers = data, counts, steps, workers
        self._next, self._coming = -1, iter(())

    def draw(self, step: int, rank: int, world: int, counts: dict[str, int]) -> list[Sample]:
        if counts != self.counts(step) or step >= self.steps:
            return self.data.draw(step, rank, world, counts)
        if step != self._next:
            own = partial(_drawn, self.data, self.counts, rank, world)
            self._coming = ahead(own, range(step, self.steps), self.workers)
        self._next = step + 1
        return next(self._coming)


def _drawn(data, counts, rank: int, world: int, step: int) -> list[Sample]:
    return data.draw(step, rank, world, counts(step))


class _Steps(Dataset):
    def __init__(self, draw: Callable[[int], object]):
        self.draw = draw

    def __getitem__(self, step: int) -> object:
        return self.draw(step)


def _begin(_: int) -> None:
    torch.set_num_threads(1)
    # A batch has thousands of tensors, and the other way to share one keeps a file open for each.
    torch.multiprocessing.set_sharing_strategy("file_system")
