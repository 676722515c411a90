"""Results of a benchmark: a table for 80 columns, CSV, JSON, and the work-precision figure."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from statistics import fmean

OURS = "samplers"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method at one number of evaluations on one field."""

    field: str
    library: str
    solver: str
    grid: str  # "as shipped", "own", "pilot", "learned", or the name of a grid
    asked: int  # calls allowed
    calls: int  # calls spent, counted
    e: float  # geometric mean over samples of the RMS endpoint error
    rms: float  # root of the mean squared endpoint error
    flips: float | None  # share of samples that end in another mode; None without modes
    seconds: float

    @property
    def method(self) -> tuple[str, str, str]:
        return self.library, self.solver, self.grid


@dataclass(frozen=True, kw_only=True)
class Report:
    """Rows, the overhead of each method per step, and the protocol of the measurement."""

    rows: list[Row]
    protocol: dict
    straightness: dict[str, float] = field(default_factory=dict)  # by field
    overhead: dict[tuple[str, str], float] = field(default_factory=dict)  # microseconds
    pilots: dict[str, dict] = field(default_factory=dict)  # calls spent on grids, by field

    def __add__(self, other: Report) -> Report:
        return Report(
            rows=self.rows + other.rows,
            protocol=self.protocol | other.protocol,
            straightness=self.straightness | other.straightness,
            overhead=self.overhead | other.overhead,
            pilots=self.pilots | other.pilots,
        )

    def __str__(self) -> str:
        return table(self)

    def order(self, field: str, method: tuple[str, str, str]) -> float:
        """Observed order: -d log e / d log evaluations between the last two measurements."""
        points = {r.calls: r.e for r in self.of(field, method) if 1e-11 < r.e < math.inf}
        if len(points) < 2:
            return math.nan
        (fewer, before), (more, after) = sorted(points.items())[-2:]
        return math.log(before / after) / math.log(more / fewer)

    def of(self, field: str, method: tuple[str, str, str]) -> list[Row]:
        return [r for r in self.rows if r.field == field and r.method == method]

    def to_csv(self, path: str | Path) -> None:
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, [f.name for f in fields(Row)])
            writer.writeheader()
            writer.writerows(map(asdict, self.rows))

    def content(self) -> dict:
        """Returns the whole report in types that JSON supports."""
        overhead = [[*method, us] for method, us in self.overhead.items()]
        return finite(asdict(self) | {"overhead": overhead})

    def to_json(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps(self.content(), indent=1, allow_nan=False) + "\n")

    def plot(self, path: str | Path, field: str | None = None) -> None:
        """Saves the work-precision figure, one curve per method, as .png, .svg or .pdf."""
        from samplers.benchmark.figure import plot

        name, count = field or self.rows[0].field, self.protocol.get("samples")
        title = f"{name}, n = {count}" if count else name
        plot([r for r in self.rows if r.field == name], path, title, OURS)


def finite(value):
    """Replaces NaN and infinity by None, because JSON has neither."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def unique(items: Iterable) -> list:
    return list(dict.fromkeys(items))


def number(value: float | None) -> str:
    """Formats a number in six characters, such as 1.2e-1; diverged ones as `-`."""
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    power = math.floor(math.log10(value) + 1e-9)
    digits = f"{value / 10**power:.1f}"
    return f"{digits}e{power}" if digits != "10.0" else f"1.0e{power + 1}"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2g}"


def table(report: Report) -> str:
    """Formats e, RMS and flips of each field: a line per method, a column per evaluation count."""
    parts = []
    for name in unique(r.field for r in report.rows):
        rows = [r for r in report.rows if r.field == name]
        parts.append(heading(report, name))
        parts.append(grid_of("e (detail): geometric mean of errors", rows, lambda r: number(r.e)))
        parts.append(grid_of("RMS (outliers count)", rows, lambda r: number(r.rms)))
        if any(r.flips is not None for r in rows):
            parts.append(grid_of("flips, % in another mode", rows, lambda r: percent(r.flips)))
        parts.append(costs(report, name, rows))
    return "\n\n".join(parts)


def heading(report: Report, name: str) -> str:
    facts = [f"field {name}", f"{report.protocol['samples']} samples", report.protocol["dtype"]]
    if name in report.straightness:
        facts.append(f"straightness {report.straightness[name]:.3g}")
    return "  ".join(facts)


def label(row: Row) -> str:
    return f"{row.solver} ({row.grid})" if row.library == OURS else row.solver


def sections(rows: list[Row]) -> dict[str, list[Row]]:
    """Returns the rows by heading: ours, every library as shipped, every library on our grid."""
    out: dict[str, list[Row]] = {}
    for row in rows:
        ours = row.library == OURS
        shipped = "as shipped" if row.grid == "as shipped" else f"on our grid ({row.grid})"
        out.setdefault(OURS if ours else f"{row.library}, {shipped}", []).append(row)
    return out


def grid_of(title: str, rows: list[Row], cell: Callable[[Row], str]) -> str:
    """Formats a block of cells; a star marks fewer evaluations than the column's (2 N - 1)."""
    calls = unique(sorted(r.asked for r in rows))
    lines = [f"{title[:80]}", f"{'calls':<24}" + "".join(f"{n:>7}" for n in calls)]
    for section, members in sections(rows).items():
        lines.append(section)
        for name in unique(map(label, members)):
            cells = {r.asked: mark(r, cell) for r in members if label(r) == name}
            lines.append(f" {name:<23.23}" + "".join(f"{cells.get(n, ''):>7}" for n in calls))
    return "\n".join(lines)


def mark(row: Row, cell: Callable[[Row], str]) -> str:
    return "*" * (row.calls < row.asked) + cell(row)


def costs(report: Report, name: str, rows: list[Row]) -> str:
    """Formats observed order, overhead per step, and time of the longest run."""
    lines = [f"{'* spent fewer calls':<40}{'order':>8}{'us per step':>14}{'seconds':>12}"]
    for method in unique(r.method for r in rows):
        last = report.of(name, method)[-1]
        overhead = report.overhead.get(method[:2], math.nan)
        title = f"{'' if last.library == OURS else last.library + ' '}{last.solver} ({last.grid})"
        order = report.order(name, method)
        timed = "-" if math.isnan(overhead) else f"{overhead:.1f}"
        slope = "-" if math.isnan(order) else f"{order:.2f}"
        lines.append(f" {title:<39.39}{slope:>8}{timed:>14}{last.seconds:>12.3f}")
    return "\n".join(lines)


def best_shipped(rows: Iterable[Row], asked: int) -> float:
    """Returns the smallest e of any other solver as shipped within this many evaluations."""
    peers = [r.e for r in rows if r.asked == asked and r.grid == "as shipped"]
    return min((e for e in peers if math.isfinite(e)), default=math.nan)


def ratios(report: Report) -> dict[str, dict[int, float]]:
    """Returns our methods' e over the best other's, a mean over fields, by evaluations."""
    names = unique(r.field for r in report.rows)
    by_field = {name: [r for r in report.rows if r.field == name] for name in names}
    out: dict[str, dict[int, list[float]]] = {}
    for rows in by_field.values():
        for row in rows:
            if row.library == OURS:
                ratio = row.e / best_shipped(rows, row.asked)
                out.setdefault(label(row), {}).setdefault(row.asked, []).append(ratio)
    return {name: {n: fmean(r) for n, r in cells.items()} for name, cells in out.items()}


def ratio_table(report: Report) -> str:
    """Formats `ratios`; a value below 1 is better than all other libraries."""
    found = ratios(report)
    calls = unique(sorted(r.asked for r in report.rows))
    count = len(unique(r.field for r in report.rows))
    lines = [f"e / e of the best peer as shipped, mean over {count} fields"]
    lines.append(f"{'calls':<24}" + "".join(f"{n:>7}" for n in calls))
    for name, cells in found.items():
        shown = [f"{cells[n]:.3g}" if n in cells else "" for n in calls]
        lines.append(f" {name:<23.23}" + "".join(f"{c:>7}" for c in shown))
    return "\n".join(lines)
