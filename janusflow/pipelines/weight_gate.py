"""A lock by which a network's weights change between calls and never during one, in any thread."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Lock, get_ident
from weakref import WeakKeyDictionary

from torch import nn


class WeightGate:
    """A readers-writer lock: many calls read the weights at once, and a change waits until none
    reads.

    Calls that start in the meantime wait for the change.
    """

    def __init__(self):
        self._turn = Condition()
        self._readers = 0
        self._writer: int | None = None

    @contextmanager
    def reading(self, nested: bool = False) -> Iterator[None]:
        """A context for a call; a `nested` one does not wait, as the outer call reads already."""
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
        """A context for a change of weights; changes may be nested."""
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
    """Returns a network's only gate, which all pipelines around the network share."""
    with _MAKING:
        return _GATES.setdefault(network, WeightGate())
