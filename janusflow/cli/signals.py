"""Ctrl+C, SIGTERM, SIGHUP: every command exits with 130, 143 or 129 and one line on what is kept.

During imports nothing can be lost and libraries may swallow exceptions, so the process ends at
once. Later the signal is an exception, so that files are closed and temporary ones removed.
"""

import atexit
import os
import signal
import sys
import threading
from types import FrameType

from janusflow.utils import stop_signals

NOTHING = "stopped while starting; nothing was written"
KEPT = "stopped; complete files are kept, none is half-written, and the same command resumes"
_received: list[int] = []  # signals of this run, the first one first
_held = 0  # folders that are locked for writing


class Stopped(KeyboardInterrupt):
    """A signal's exception; `code` is the exit code that shells expect.

    A command sets `told` if it has said what is kept, and `nothing_kept` if it leaves nothing to
    clean up, so that the process may end at once.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.code = 128 + number


def install() -> dict[int, object]:
    """Handles the signals from now on; returns the previous handlers."""
    _received.clear()
    return {number: signal.signal(number, _stop) for number in stop_signals.handled()}


def restore(before: dict[int, object]) -> None:
    """Restores the handlers that `install` returned."""
    for number, handler in before.items():
        signal.signal(number, handler)


def code() -> int | None:
    """Returns the exit code if a signal came, even if a library swallowed its exception."""
    return 128 + _received[0] if _received else None


def _stop(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    stop_signals.silence_closed_terminal(number)
    if _importing(frame) and not _writing():
        _end_now(NOTHING, 128 + number)
    raise Stopped(number)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _writing() -> bool:
    """Returns whether a run holds a folder, whose last message must not be cut off."""
    module = sys.modules.get("janusflow.utils.locked_dir")
    return bool(module is not None and getattr(module, "HELD", None))


def _end_now(message: str, code: int) -> None:
    try:
        if message:
            os.write(2, f"janusflow: {message}\n".encode())
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(code)


def leave(error: KeyboardInterrupt) -> None:
    """Says what is kept, unless the command has done so, and exits with the signal's code."""
    from janusflow.cli.terminal import tell

    if not getattr(error, "told", False):
        tell(KEPT)
    exit_code = code() or getattr(error, "code", 130)
    computing = any(t.daemon and type(t).__name__ != "TMonitor" for t in threading.enumerate())
    if computing or getattr(error, "nothing_kept", False):
        # threads that compute would make the interpreter abort on its way out, which takes seconds
        atexit.register(_end_now, "", exit_code)
    sys.exit(exit_code)
