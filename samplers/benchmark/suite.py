"""Solvers against the best peer of every cell, over ten families of hard fields and a mild one.

    python -m samplers.benchmark --suite

A cell is a field at a number of calls; its number is the error of ours (geometric mean over
samples of the RMS at the end) over the least error of all peers as shipped that spend exactly as
many calls: an oracle that nobody has. Half of the fields, "development", may guide choices; the
other half, "held-out", is for looking at once a choice is made.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from statistics import fmean

import torch
from torch import Tensor

from samplers.benchmark.families import FAMILIES
from samplers.benchmark.peers import Peer, peers
from samplers.benchmark.problems import Problem
from samplers.benchmark.summary import finite
from samplers.core import Solver, sample
from samplers.search.pilot import pilot

CALLS = (4, 6, 8, 10, 16, 32)
HALVES = {"development": "dev", "held-out": "held"}
SAMPLES, SEED = 32, 12  # of the noise that is judged
LOOKS, LOOK_SEED = 8, 62  # of the noise that a pilot sees
SLOW = ("implicit_adams",)  # solves an equation in each step, its calls a bound only


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One field at one number of calls."""

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
    """All cells, printed for 80 columns: a table for each half and grid."""

    cells: list[Cell]

    def __str__(self) -> str:
        halves, grids = dict.fromkeys(c.half for c in self.cells), ("own", "pilot")
        return "\n\n".join(
            block(f"{half}, {grid}", [c for c in self.cells if c.half == half], grid)
            for half in halves
            for grid in grids
            if getattr(self.cells[0], grid) is not None
        )

    def to_json(self, path: str | Path) -> None:
        protocol = dict(samples=SAMPLES, seed=SEED, looks=LOOKS, look_seed=LOOK_SEED)
        content = dict(protocol=protocol, cells=[vars(c) for c in self.cells])
        Path(path).write_text(json.dumps(finite(content), indent=1, allow_nan=False) + "\n")


def fields(half: str, per_family: int = 2) -> Iterator[tuple[str, Problem]]:
    """(family, field) of a half, the same ones every time."""
    for name, make in FAMILIES.items():
        for k in range(per_family):
            yield name, make(Random(f"{HALVES[half]}/{name}/{k}"))


def error(x: Tensor, end: Tensor) -> float:
    """Geometric mean over samples of the RMS error; infinity where one diverged."""
    square = (x - end).square().flatten(1).mean(1)
    e = float((square.log().mean() / 2).exp())
    return e if math.isfinite(e) else math.inf


@cache
def rivals() -> tuple[Peer, ...]:
    """Deterministic peers; flow_matching's methods are torchdiffeq's."""
    found = [p for p in peers().values() if not p.stochastic and p.library != "flow_matching"]
    return tuple(p for p in found if p.name not in SLOW)


def best_peer(problem: Problem, noise: Tensor, end: Tensor, calls: int) -> tuple[float, str]:
    """(error, name) of the peer that ends nearest with exactly so many calls."""
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
    """All cells; `watch` is told each field before it is measured."""
    cells = []
    for half in halves:
        for family, problem in fields(half, per_family):
            watch(f"{half} {family} {problem.name}")
            noise, look = problem.noise(SAMPLES, SEED), problem.noise(LOOKS, LOOK_SEED)
            end, v = problem.solution(noise), problem.velocity
            for n in calls:
                least, peer = best_peer(problem, noise, end, n)
                own = error(sample(v, noise, n, solver, nonfinite="return"), end)
                placed = pilot(v, look, n, solver) if piloted else None
                seen = placed and error(sample(v, noise, placed, solver, nonfinite="return"), end)
                told = dict(half=half, family=family, field=problem.name, calls=n, peer=peer)
                ratio = None if seen is None else seen / least
                cells.append(Cell(**told, error=least, own=own / least, pilot=ratio))
    return Page(cells)


def mean(ratios: list[float]) -> float:
    """Geometric."""
    return math.exp(fmean(map(math.log, ratios)))


def block(title: str, cells: list[Cell], grid: str) -> str:
    calls = sorted({c.calls for c in cells})

    def line(name: str, members: list[Cell], fold: Callable[[list[float]], float]) -> str:
        columns = [[getattr(c, grid) for c in members if c.calls == n] for n in calls]
        every = [r for column in columns for r in column]
        ends = f"{math.sqrt(fmean(r * r for r in every)):8.2f}{max(every):8.2f}"
        return f"{name:<18}" + "".join(f"{fold(column):7.2f}" for column in columns) + ends

    families = dict.fromkeys(c.family for c in cells)
    hard = [c for c in cells if c.family != "mild"]
    lines = [f"{title:<18}" + "".join(f"{n:>7}" for n in calls) + f"{'RMS':>8}{'worst':>8}"]
    lines += [line(name, [c for c in cells if c.family == name], mean) for name in families]
    if hard:
        lines += [line("hard, mean", hard, mean), line("hard, worst", hard, max)]
    return "\n".join(lines)
