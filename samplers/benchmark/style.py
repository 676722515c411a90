"""The style of all figures."""

from functools import wraps
from importlib import import_module
from pathlib import Path

SHEET = Path(__file__).with_name("paper.mplstyle")


def paper(draw):
    """A decorator of drawing functions that applies the style sheet while they run.

    Raises ImportError, with the command to install it, if matplotlib is missing.
    """

    @wraps(draw)
    def styled(*args, **kwargs):
        try:
            import_module("matplotlib.figure")
            from matplotlib import rc_context
        except ImportError as error:
            raise ImportError("figures need matplotlib; run pip install matplotlib") from error
        with rc_context(fname=SHEET):
            return draw(*args, **kwargs)

    return styled


def colour(place: int) -> str:
    """Returns a colour of the style sheet's cycle, as "C0" is resolved after the sheet is gone."""
    from matplotlib import rcParams

    cycle = rcParams["axes.prop_cycle"].by_key()["color"]
    return cycle[place % len(cycle)]


def mark(place: int) -> str:
    """Returns a format of marker and line: the marker differs from line to line, and the line's
    dashes where the cycle of colours repeats.
    """
    from matplotlib import rcParams

    line = ("-", "--", ":")[place // len(rcParams["axes.prop_cycle"]) % 3]
    return "os^Dv*X"[place % 7] + line


def thinned(ticks: list[int]) -> list[int]:
    """Returns at most nine of the ticks, including the first and the last."""
    if len(ticks) <= 9:
        return ticks
    return [ticks[round(i * (len(ticks) - 1) / 8)] for i in range(9)]
