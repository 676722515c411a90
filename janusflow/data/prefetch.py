"""Draws batches in other processes while the network works on the previous one."""

import warnings
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch.utils.data import DataLoader, Dataset

from janusflow.data.samples import BrokenSample, Sample
from janusflow.utils import plugins


def ahead(draw: Callable[[int], object], steps: range, workers: int) -> Iterator:
    """Yields draw(step) for every step in order, computed by `workers` processes; 0 computes it
    here.

    `draw` is sent to the processes by pickle and must depend on the step alone.
    """
    if not workers:
        return map(draw, steps)
    loader = DataLoader(
        _Steps(draw),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        collate_fn=_as_it_is,  # torch's own would make lists of tuples
        multiprocessing_context="spawn",  # a process with threads or a GPU must not be forked
        worker_init_fn=_begin,
    )
    return iter(loader)


class Ahead:
    """A batch source that returns the same batches as `data`, drawn by other processes.

    `encode` (samples -> samples) runs in this process, for work that needs its GPU. `follow` says
    how many samples each step needs. The processes start at the first draw after it, and restart if
    a step is requested out of order. Broken samples are recorded in this process's `data.tally`.
    """

    def __init__(self, data, workers: int, encode: Callable | None = None):
        self.data, self.workers, self.encode = data, workers, encode
        self.schedule, self.steps = None, 0
        self._next, self._coming = -1, iter(())

    def follow(self, schedule, steps: int) -> None:
        """Sets the schedule, with `counts(step)` and `start(step)`, and the run's last step."""
        self.schedule, self.steps, self._next = schedule, steps, -1
        if hasattr(self.data, "follow"):
            self.data.follow(schedule, steps)

    def draw(
        self, step: int, rank: int, world: int, counts: dict[str, int], start: dict[str, int]
    ) -> list[Sample]:
        if step != self._next:
            own = partial(_drawn, self.data, self.schedule, rank, world)
            self._coming = ahead(own, range(step, max(self.steps, step + 1)), self.workers)
        self._next = step + 1
        asked, samples, broken = next(self._coming)
        if asked != (counts, start):
            raise ValueError(
                f"step {step} needs {counts}, and {asked[0]} was read ahead; let the loader follow "
                "the run's own schedule"
            )
        for one in broken:
            self.data.tally.add(one)
        if isinstance(samples, Exception):
            raise samples
        return self.encode(samples) if self.encode and samples else samples


def _drawn(data, schedule, rank: int, world: int, step: int) -> tuple:
    """Returns the request, the samples or the error, and which samples were broken."""
    tally = getattr(data, "tally", None)
    known = set(tally.broken) if tally else set()
    asked = schedule.counts(step), schedule.start(step)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the process that trains says it
            samples = data.draw(step, rank, world, *asked)
    except Exception as error:  # raised again where it can be read
        samples = error
    fresh = {name: why for name, why in tally.broken.items() if name not in known} if tally else {}
    return asked, samples, [BrokenSample(name, why) for name, why in fresh.items()]


class _Steps(Dataset):
    """draw(step) by number; unpickling loads this process's plugins first, for their readers."""

    def __init__(self, draw: Callable[[int], object]):
        self.draw = draw

    def __reduce__(self):
        return _steps, (_Plugins(), self.draw)  # in this order

    def __getitem__(self, step: int) -> object:
        return self.draw(step)


class _Plugins:
    """Loads the plugins of the process that pickled it."""

    def __reduce__(self):
        return plugins.load, (tuple(plugins.LOADED),)


def _steps(_plugins: object, draw: Callable[[int], object]) -> _Steps:
    return _Steps(draw)


def _as_it_is(drawn: object) -> object:
    return drawn


def _begin(_: int) -> None:
    torch.set_num_threads(1)
    # A batch has thousands of tensors, and the other way to share one keeps a file open for each.
    torch.multiprocessing.set_sharing_strategy("file_system")
