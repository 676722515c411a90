"""Figures of sampling and of measurements.

Every function draws into `axes`, or into a new figure, and returns the figure; none shows or saves
it. Images are PIL images, or arrays (height, width, 3) in [0, 1] or of bytes. matplotlib is needed
(`pip install janusflow[eval]`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from janusflow.utils.extras import needed
from samplers.benchmark.style import mark, paper, thinned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAP = 0.06  # between images, in widths of an image
LINE = 0.1  # height of a caption's line, in widths of an image


@paper
def images(
    pictures: Sequence,
    captions: Sequence[str] | None = None,
    columns: int | None = None,
    axes: Axes | None = None,
) -> Figure:
    """Draws images of one size in a grid, nearly square unless `columns` is given, with captions
    above.

    Raises ValueError without images, and if the numbers of images and captions differ.
    """
    if not len(pictures):
        raise ValueError("there are no images to draw; give at least one")
    columns = columns or int(np.ceil(np.sqrt(len(pictures))))
    arrays = [np.asarray(image) for image in pictures]
    captions = [fill(text, 22) for text in _fitting(captions, len(arrays), "captions")]
    high = arrays[0].shape[0] / arrays[0].shape[1]
    rows = [captions[i : i + columns] for i in range(0, len(captions), columns)]
    heads = [max(text.count("\n") + 1 if text else 0 for text in row) * LINE for row in rows]
    tops = [sum(heads[: i + 1]) + i * (high + GAP) for i in range(len(rows))]
    bottom = tops[-1] + high
    axes = axes or _axes(1.7 * columns, 1.7 * bottom)
    for i, (array, text) in enumerate(zip(arrays, captions, strict=True)):
        left, top = i % columns * (1 + GAP), tops[i // columns]
        axes.imshow(array, extent=(left, left + 1, top + high, top), interpolation="nearest")
        axes.text(left + 0.5, top - 0.02, text, ha="center", va="bottom", fontsize=8)
    axes.set(xlim=(0, columns * (1 + GAP) - GAP), ylim=(bottom, 0))
    axes.set_axis_off()
    return axes.figure


@paper
def strip(rows: Mapping[str, Sequence], times: Sequence[float], axes: Axes | None = None) -> Figure:
    """Draws images along trajectories: one labelled row each, one column per time.

    `rows` maps a label to the images at `times`. Raises ValueError if a row and the times differ in
    length.
    """
    for label, row in rows.items():
        _fitting(row, len(times), f"images of {label!r}")
    heads = [f"t = {float(t):.3g}" for t in times]
    captions = heads + [""] * (len(times) * (len(rows) - 1))
    figure = images([p for row in rows.values() for p in row], captions, len(times), axes)
    axes = axes or figure.axes[0]
    for label, first in zip(rows, axes.get_images()[:: len(times)], strict=True):
        middle = sum(first.get_extent()[2:]) / 2
        axes.text(-GAP, middle, label, ha="right", va="center", rotation=90, fontsize=9)
    return figure


def _legend(axes: Axes, down: float = 0.17, columns: int = 4) -> None:
    """Places the legend below the axes, by a fraction of their height, where it hides nothing."""
    place = dict(loc="upper center", bbox_to_anchor=(0.5, -down))
    axes.legend(fontsize="small", ncols=columns, frameon=False, **place)


@paper
def work_precision(
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    floor: float | None = None,
    axes: Axes | None = None,
) -> Figure:
    """Draws error against network evaluations on logarithmic axes; `curves` is {name: (calls,
    errors)}.

    `floor` is the error of the reference itself: below that line differences mean nothing.
    """
    axes = axes or _axes(6, 3.8)
    if floor is not None:
        axes.axhline(floor, color="k", ls=":", lw=1, label="error of the reference")
    for place, (name, (calls, errors)) in enumerate(curves.items()):
        axes.loglog(calls, errors, mark(place), ms=4, label=name)
    ticks = thinned(sorted({n for calls, _ in curves.values() for n in calls}))
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.minorticks_off()
    axes.set(xlabel="network evaluations (NFE)", ylabel="error at t = 1")
    axes.grid(alpha=0.3)
    _legend(axes, columns=5 if len(curves) == 5 else 4)
    return axes.figure


@paper
def bars(
    scores: Mapping[str, Mapping[str, tuple[float, float, float]]], axes: Axes | None = None
) -> Figure:
    """Draws scores in [0, 1] with intervals; `scores`: {series: {group: (score, low, high)}}."""
    groups = list(dict.fromkeys(group for series in scores.values() for group in series))
    axes = axes or _axes(max(5, 1.1 * len(groups)), 3.2)
    width = 0.8 / len(scores)
    for i, (name, series) in enumerate(scores.items()):
        score, low, high = np.array([series.get(g, (np.nan,) * 3) for g in groups]).T
        places = np.arange(len(groups)) + (i - (len(scores) - 1) / 2) * width
        reach = np.clip([score - low, high - score], 0, None)
        axes.bar(places, score, 0.94 * width, yerr=reach, capsize=2, label=name)
    axes.set_xticks(range(len(groups)), groups, rotation=15)
    axes.set(ylim=(0, 1.02), ylabel="score")
    _legend(axes, 0.24)  # the groups' names are long and turned
    return axes.figure


@paper
def curves(
    lines: Mapping[str, tuple], xlabel: str, ylabel: str, axes: Axes | None = None
) -> Figure:
    """Draws lines with bands; `lines` is {name: (x, y) or (x, y, low, high)}."""
    axes = axes or _axes(6, 3.4)
    for place, (name, (x, y, *band)) in enumerate(lines.items()):
        (drawn,) = axes.plot(x, y, mark(place), ms=3, label=name)
        if band:
            axes.fill_between(x, *band, color=drawn.get_color(), alpha=0.2, lw=0)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    _legend(axes)
    return axes.figure


def by_depth(
    values: Mapping[str, Sequence], ylabel: str = "alignment (CKNNA)", axes: Axes | None = None
) -> Figure:
    """Draws a value for each block of a network, such as alignment with a teacher; blocks count
    from 1.

    `values` is {name: (L,)}, or {name: (L, 3)} with rows (value, low, high).
    """
    lines = {}
    for name, row in values.items():
        table = np.asarray(row, dtype=float)
        table = table[:, None] if table.ndim == 1 else table
        lines[name] = (np.arange(1, len(table) + 1), *table.T)
    return curves(lines, "block", ylabel, axes)


def _axes(width: float, height: float) -> Axes:
    with needed("eval", "a figure"):
        from matplotlib.figure import Figure
    return Figure(figsize=(width, height), layout="constrained").add_subplot()


def _fitting(items: Sequence | None, count: int, what: str) -> Sequence:
    items = [""] * count if items is None else items
    if len(items) != count:
        raise ValueError(f"{len(items)} {what} came where {count} are expected; give one each")
    return items
