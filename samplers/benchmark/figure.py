"""Draws the benchmark's work-precision figure: error against network evaluations."""

import math
from collections.abc import Sequence
from pathlib import Path

from samplers.benchmark.style import paper, thinned

REST = {"color": "0.75", "linewidth": 0.7}


@paper
def plot(rows: Sequence, path: str | Path, title: str, ours: str) -> None:
    """Draws the rows of one field: ours, the best of other libraries, and the rest in grey.

    Points are placed at the evaluations that were spent, which may be fewer than requested.
    """
    from matplotlib.figure import Figure

    rows = [r for r in rows if math.isfinite(r.e) and r.e > 0]
    methods = list(dict.fromkeys(r.method for r in rows))
    lead = leaders(rows)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    named = False
    for method in sorted(methods, key=lambda m: (m[0] == ours) + (m in lead)):
        mine = [r for r in rows if r.method == method]
        look = style(method, lead, ours)
        if look is REST and not named:
            look, named = {**REST, "label": "other methods"}, True
        axes.plot([r.calls for r in mine], [r.e for r in mine], **look)
    shown = [r.e for r in rows if r.library == ours or r.method in lead]
    ticks = thinned(sorted({r.calls for r in rows if r.library == ours or r.method in lead}))
    axes.set(xscale="log", yscale="log", ylim=(min(shown) / 2, 2 * max(shown)), title=title)
    axes.set(xlabel="evaluations of the velocity", ylabel="endpoint error, geometric mean")
    axes.set_xticks(ticks, map(str, ticks))
    axes.minorticks_off()
    axes.grid()
    figure.legend(loc="outside lower center", ncols=2)
    figure.savefig(path)


def leaders(rows: Sequence) -> set[tuple[str, str, str]]:
    """Returns other libraries' methods, as shipped, that are best at some number of evaluations."""
    shipped = [r for r in rows if r.grid == "as shipped"]
    return {
        min((r for r in shipped if r.asked == n), key=lambda r: r.e).method
        for n in {r.asked for r in shipped}
    }


def style(method: tuple[str, str, str], lead: set[tuple[str, str, str]], ours: str) -> dict:
    library, solver, grid = method
    if library == ours:
        return {"marker": "o", "linewidth": 2, "label": f"{solver} ({grid})"}
    if method in lead:
        label = f"{library} {solver} ({grid})"
        return {"linestyle": "--", "marker": "s", "markersize": 4, "label": label}
    return REST
