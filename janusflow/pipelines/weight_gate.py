"""A network's weights change between calls and never during one, whatever thread asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Lock, get_ident
from weakref import WeakKeyDictionary

from torch import nn


class WeightGate:
    """Many calls read the weights at once. Whoever changes them waits until none reads, and calls
    that begin meanwhile wait for him.
    """

    def __init__(self):
        self._turn = Condition()
        self._readers = 0
        self._writer: int | None = None

    @contextmanager
    def reading(self, nested: bool = False) -> Iterator[None]:
        """For a call; one that is `nested` in another does not wait, since the outer one reads."""
        with self._turn:
            if not nested:
                self._turn.wait_for(lambda: self._writer in (None, get_ident()))
            self._readers += 1
        try:
            yield
        finally:
            self._leave(readers=1)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """For a change, and for the smaller changes that it is made of."""
        with self._turn:
            inside = self._writer == get_ident()
            if not inside:
                self._turn.wait_for(lambda: self._writer is None)
                self._writer = get_ident()
                try:
                    self._turn.wait_for(lambda: self._readers == 0)
                except BaseException:  # Ctrl+C while waiting
                    self._writer = None
                    self._turn.notify_all()
                    raise
        try:
            yield
        finally:
            if not inside:
                self._leave(writer=True)

    def _leave(self, readers: int = 0, writer: bool = False) -> None:
        with self._turn:
            self._readers -= readers
            self._writer = None if writer else self._writer
            self._turn.notify_all()


_GATES: WeakKeyDictionary[nn.Module, WeightGate] = WeakKeyDictionary()
_MAKING = Lock()


def gate_of(network: nn.Module) -> WeightGate:
    """The one gate of a network, which pipelines that share it share too."""
    with _MAKING:
        return _GATES.setdefault(network, WeightGate())
