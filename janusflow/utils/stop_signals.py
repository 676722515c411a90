"""The signals that ask a run to stop, and terminals that were closed."""

import os
import signal
import stat

HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none


def handled() -> list[int]:
    """Returns SIGINT, SIGTERM, and SIGHUP (a closed terminal) unless it is ignored, as by nohup."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN:
        numbers.append(HANGUP)
    return numbers


def silence_closed_terminal(number: int) -> None:
    """After SIGHUP, sends to nowhere what would be written to a terminal that is gone.

    Writing there raises OSError, which would end a run before it has saved its state.
    """
    if number != HANGUP:
        return
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        if not os.isatty(stream) and _is_terminal_or_device(stream):
            os.dup2(nowhere, stream)
    os.close(nowhere)


def _is_terminal_or_device(stream: int) -> bool:
    try:
        return stat.S_ISCHR(os.fstat(stream).st_mode)
    except OSError:  # closed
        return False
