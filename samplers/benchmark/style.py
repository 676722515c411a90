"""The look of every figure."""

from __future__ import annotations

from functools import wraps
from importlib import import_module
from pathlib import Path

SHEET = Path(__file__).with_name("paper.mplstyle")


def paper(draw):
    """A drawing function with the style sheet in force while it runs.

    ImportError where matplotlib is missing, with the command that installs it.
    """

    @wraps(draw)
    def styled(*args, **kwargs):
        try:
            import_module("matplotlib.figure")
            from matplotlib import rc_context
        except ImportError as error:
            raise ImportError("figures need matplotlib: pip install matplotlib") from error
        with rc_context(fname=SHEET):
            return draw(*args, **kwargs)

    return styled


def colour(place: int) -> str:
    """A colour of the sheet's cycle by number; "C0" would be looked up when the sheet is gone."""
    from matplotlib import rcParams

    cycle = rcParams["axes.prop_cycle"].by_key()["color"]
    return cycle[place % len(cycle)]


def thinned(ticks: list[int], most: int = 9) -> list[int]:
    """At most so many of the ticks, the first and the last among them."""
    if len(ticks) <= most:
        return ticks
    return sorted({ticks[round(i * (len(ticks) - 1) / (most - 1))] for i in range(most)})
