"""A worker thread that runs one job at a time from a bounded queue, in order of arrival."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

log = logging.getLogger("janusflow.serve")


class Busy(Exception):
    """Raised when the queue is full; `wait` is the estimated seconds until there is room."""

    def __init__(self, wait: int):
        super().__init__(f"the queue is full; try again in {wait} s")
        self.wait = wait


class Cancelled(Exception):
    """Raised inside a job that nobody waits for any more."""


class Stopping(Exception):
    """Raised for requests that wait when the server is told to stop."""


class ModelJob:
    """Work for the model, whose results are sent to the event loop that created it.

    `events` holds ("told", value) for each `tell`, and at last ("done", result) or ("failed",
    exception).
    """

    def __init__(self, work: Callable[[ModelJob], Any]):
        self._work, self._loop = work, asyncio.get_running_loop()
        self.events: asyncio.Queue = asyncio.Queue()
        self.cancelled = threading.Event()

    def tell(self, value: Any) -> None:
        """Sends a value on, and raises `Cancelled` if nobody listens any more."""
        self.check()
        self._put("told", value)

    def check(self) -> None:
        if self.cancelled.is_set():
            raise Cancelled

    def run(self) -> None:
        try:
            self._put("done", self._work(self))
        except Exception as error:
            self._put("failed", error)
        except BaseException as error:  # a panic of Rust; the next job has to run
            self._put("failed", RuntimeError(f"{type(error).__name__}: {error}"))

    def _put(self, kind: str, value: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(self.events.put_nowait, (kind, value))
        except RuntimeError:  # the loop is closed: nobody listens
            self.cancelled.set()


class Worker:
    """A thread that runs jobs. At most `places` of them wait or run."""

    def __init__(self, places: int):
        self.places, self.seconds = places, 1.0  # seconds: of a job, averaged
        self._waiting: deque[ModelJob] = deque()
        self._running: ModelJob | None = None
        self._changed = threading.Condition()
        self._closed = False
        self.stopping = False  # set by a signal: nobody's job is waited for any more
        self._thread = threading.Thread(target=self._work, name="janusflow-serve", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> int:
        """The number of jobs that wait or run."""
        with self._changed:
            return len(self._waiting) + (self._running is not None)

    def submit(self, job: ModelJob) -> ModelJob:
        """Adds a job to the queue. Raises `Busy` if it is full."""
        with self._changed:
            held = len(self._waiting) + (self._running is not None)
            if held >= self.places:
                raise Busy(max(1, round(held * self.seconds)))
            self._waiting.append(job)
            self._changed.notify()
        return job

    def cancel(self, job: ModelJob) -> None:
        """Removes a job from the queue, or tells it to stop; a finished job is not affected."""
        job.cancelled.set()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)

    def close(self) -> None:
        """Stops the running job, drops waiting ones, and ends the thread."""
        with self._changed:
            self._closed = True
            for job in (*self._waiting, *filter(None, [self._running])):
                job.cancelled.set()
            self._waiting.clear()
            self._changed.notify()
        self._thread.join(10)

    def _next(self) -> ModelJob | None:
        with self._changed:
            self._running = None
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._closed:
                self._running = self._waiting.popleft()
            return self._running

    def _work(self) -> None:
        while (job := self._next()) is not None:
            started = time.monotonic()
            job.run()
            self.seconds = 0.8 * self.seconds + 0.2 * (time.monotonic() - started)
