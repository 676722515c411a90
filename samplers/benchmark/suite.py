"""Compares solvers with the best other solver of each cell, over families of hard fields and a
mild one.

    python -m samplers.benchmark --suite

A cell is a field at a number of evaluations. Its value is our error (geometric mean over samples of
the RMS at the end) divided by the smallest error of all other libraries' solvers as shipped with
exactly as many evaluations; no user could know in advance which that is. Half of the fields,
"development", may guide choices; the other half, "held-out", is only for evaluation.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby, product
from pathlib import Path
from random import Random
from statistics import fmean

import torch
from torch import Tensor

from samplers.benchmark import trained_fields  # noqa: F401 - registers a family
from samplers.benchmark.field_families import FAMILIES
from samplers.benchmark.peers import Peer, peers
from samplers.benchmark.problems import Problem, mixture
from samplers.benchmark.summary import finite
from samplers.comparison import mean_error
from samplers.core import Solver, sample
from samplers.search.pilot import pilot

CALLS = (4, 6, 8, 10, 16, 32)
HALVES = {"development": "dev", "held-out": "held"}
SAMPLES, SEED = 32, 12  # of the noise that is judged
LOOKS, LOOK_SEED = 8, 62  # of the noise that a pilot sees
SLOW = ("implicit_adams",)  # solves an equation in each step, its calls a bound only


def probe() -> list[float]:
    """Returns the error of `auto` on a quick field at CALLS; a change outdates stored results."""
    problem = mixture(dim=4, seed=1)
    noise = problem.noise(LOOKS, SEED)
    end = problem.solution(noise)
    return [error(sample(problem.velocity, noise, n, "auto"), end) for n in CALLS]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One field at one number of evaluations."""

    half: str
    family: str
    field: str
    calls: int
    peer: str  # the best of them
    error: float  # and its error
    own: float  # error on the solver's own grid over that
    pilot: float | None  # the same for a pilot's choice


@dataclass(frozen=True)
class Page:
    """All cells, printed for 80 columns with one table per half and grid."""

    cells: list[Cell]

    def rows(self) -> list[dict]:
        """Returns per half, grid and family the geometric mean by evaluations, the RMS and the
        worst cell.

        Two more rows summarise the hard families.
        """
        out = []
        for half, grid in product(dict.fromkeys(c.half for c in self.cells), ("own", "pilot")):
            cells = [c for c in self.cells if c.half == half and getattr(c, grid) is not None]
            hard = [c for c in cells if c.family != "mild"]
            named = {f: [c for c in cells if c.family == f] for f in {c.family: 0 for c in cells}}
            for family, members in named.items():
                out.append(row(half, grid, family, members, mean))
            if hard:
                out.append(row(half, grid, "hard (mean)", hard, mean))
                out.append(row(half, grid, "hard (worst)", hard, max))
        return out

    def __str__(self) -> str:
        blocks = []
        for (half, grid), rows in groupby(self.rows(), key=lambda r: (r["half"], r["grid"])):
            rows = [{k: v for k, v in r.items() if k not in ("half", "grid")} for r in rows]
            head = f"{f'{half}, {grid}':<20}" + "".join(f"{k:>7}" for k in list(rows[0])[1:])
            lines = [
                f"{r.pop('family'):<20}" + "".join(f"{v:7.2f}" for v in r.values()) for r in rows
            ]
            blocks.append("\n".join([head, *lines]))
        return "\n\n".join(blocks)

    def to_json(self, path: str | Path) -> None:
        protocol = dict(samples=SAMPLES, seed=SEED, looks=LOOKS, look_seed=LOOK_SEED)
        content = dict(protocol=protocol, cells=[vars(c) for c in self.cells])
        Path(path).write_text(json.dumps(finite(content), indent=1, allow_nan=False) + "\n")


def fields(half: str, per_family: int = 2) -> Iterator[tuple[str, Problem]]:
    """Returns (family, field) of a half, always the same ones."""
    for name, make in FAMILIES.items():
        for k in range(per_family):
            yield name, make(Random(f"{HALVES[half]}/{name}/{k}"))


def error(x: Tensor, end: Tensor) -> float:
    """Geometric mean over samples of the RMS error; infinity if one diverged."""
    e = mean_error(x, end)
    return e if math.isfinite(e) else math.inf


@cache
def rivals() -> tuple[Peer, ...]:
    """Returns other libraries' deterministic methods; flow_matching's are torchdiffeq's."""
    found = [p for p in peers().values() if not p.stochastic and p.library != "flow_matching"]
    return tuple(p for p in found if p.name not in SLOW)


def best_peer(problem: Problem, noise: Tensor, end: Tensor, calls: int) -> tuple[float, str]:
    """Returns (error, name) of the best other solver at exactly so many evaluations."""
    able = [p for p in rivals() if (n := p.steps(calls)) and p.cost(n) == calls]
    errors = {p.name: error(p.run(problem.velocity, noise, calls), end) for p in able}
    return min((e, name) for name, e in errors.items())


@torch.no_grad()
def run(
    calls: Iterable[int] = CALLS,
    halves: Iterable[str] = tuple(HALVES),
    *,
    solver: str | Solver = "auto",
    per_family: int = 2,
    piloted: bool = True,
    watch: Callable[[str], None] = lambda _: None,
) -> Page:
    """Measures all cells; `watch` is called with each field before it is measured."""
    cells = []
    for half in halves:
        for family, problem in fields(half, per_family):
            watch(f"{half} {family} {problem.name}")
            told = dict(half=half, family=family, field=problem.name)
            cells += [Cell(**told, **seen) for seen in measured(problem, calls, solver, piloted)]
    return Page(cells)


def measured(
    problem: Problem,
    calls: Iterable[int],
    solver: str | Solver = "auto",
    piloted: bool = True,
    samples: int = SAMPLES,
) -> Iterator[dict]:
    """Returns the entries of this field's cells, at each number of evaluations."""
    noise, look = problem.noise(samples, SEED), problem.noise(LOOKS, LOOK_SEED)
    end, v = problem.solution(noise), problem.velocity
    for n in calls:
        least, peer = best_peer(problem, noise, end, n)
        own = error(sample(v, noise, n, solver, nonfinite="return"), end) / least
        placed = pilot(v, look, n, solver) if piloted else None
        seen = placed and error(sample(v, noise, placed, solver, nonfinite="return"), end) / least
        yield dict(calls=n, peer=peer, error=least, own=own, pilot=seen)


def mean(ratios: list[float]) -> float:
    """The geometric mean."""
    return math.exp(fmean(map(math.log, ratios)))


def row(half: str, grid: str, family: str, cells: list[Cell], fold: Callable) -> dict:
    ratios = {
        n: [getattr(c, grid) for c in cells if c.calls == n] for n in {c.calls for c in cells}
    }
    every = [r for column in ratios.values() for r in column]
    columns = {str(n): round(fold(ratios[n]), 3) for n in sorted(ratios)}
    ends = {"RMS": math.sqrt(fmean(r * r for r in every)), "worst": max(every)}
    return (
        dict(half=half, grid=grid, family=family)
        | columns
        | {k: round(v, 3) for k, v in ends.items()}
    )
