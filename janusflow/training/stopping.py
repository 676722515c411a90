"""Handles signals that ask a run to stop after its current step."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from janusflow.utils import stop_signals


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], int]]:
    """Yields a function that returns the received signal, or 0; a second Ctrl-C stops at once."""
    came: list[int] = []

    def note(number: int, _frame) -> None:
        if came and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop_signals.silence_closed_terminal(number)
        came.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    before = {number: signal.signal(number, note) for number in stop_signals.handled()}
    try:
        yield lambda: came[0] if came else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
