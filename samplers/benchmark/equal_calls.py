"""Compares solvers, ours and other libraries', by error at equal network evaluations.

    python -m samplers.benchmark --field mixture64 --calls 4 8 16 --plot work.png

Other solvers run as shipped, and on our grid. The error e ("detail") is the geometric mean over
samples of the RMS endpoint error. The plain RMS and the fraction of basin flips are reported too; a
single outlier in 512 samples already changes those.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from samplers import command_line
from samplers.benchmark import suite
from samplers.benchmark.measure import fixed, judged, now, overheads, play, protocol
from samplers.benchmark.peers import Peer, peers
from samplers.benchmark.problems import PROBLEMS, Problem
from samplers.benchmark.summary import OURS, Report, Row, ratio_table
from samplers.comparison import endpoints
from samplers.core import Solver, Velocity, count, find
from samplers.grids import uniform
from samplers.rectify import straightness
from samplers.search.pilot import PilotGrid
from samplers.search.pilot import pilot as pilot_grid
from samplers.solvers.linear_multistep import learned

CALLS = (4, 6, 8, 10, 16, 20, 32, 64)


def run(
    v: Velocity,
    noise: Tensor,
    *,
    calls: Iterable[int] = CALLS,
    solvers: Iterable[str | Solver] | None = None,
    reference: Tensor | float = 1e-10,
    others: bool | Iterable[Peer] = True,
    pilot: bool | Tensor = True,
    basin: Callable[[Tensor], Tensor] | None = None,
    overhead: bool = True,
    name: str = "field",
    watch: Callable[[list], Iterable] = iter,
) -> Report:
    """Measures our solvers and others on one field from the same noise, (B, ...).

    Args:
        calls: the numbers of network evaluations. A solver that cannot spend one exactly spends
            what fits and is marked with a star.
        solvers: ours, by name or as objects; None for all with fixed steps and without noise.
        reference: the endpoints, shaped like noise, or a tolerance to find them with by dopri8 in
            the dtype of the noise; 1e-10 needs float64.
        others: False for ours alone, or the solvers of other libraries to run.
        pilot: also run everything on grids found by a pilot; the noise for it (default the first
            eight of `noise`), or False for none.
        basin: a function from endpoints to an integer label of their mode, (B,), to count flips.
        overhead: also time every method's steps on a tiny state, which takes some seconds.
        name: the field's name in the report.
        watch: wraps the list of trials, as tqdm does.
    """
    calls = tuple(calls)
    chosen = [find(s) for s in solvers] if solvers is not None else fixed()
    rivals = list(peers().values()) if others is True else list(others or ())
    place = None if pilot is False else Placer(v, noise[:8] if pilot is True else pilot)
    with torch.no_grad():
        if not isinstance(reference, Tensor):
            reference = endpoints(v, noise, reference)
        trial = partial(attempt, v, noise, judged(reference, basin))
        plans = [*ours(chosen, calls, place), *theirs(rivals, calls, place)]
        rows = [row(name, who, trial(play)) for who, play in watch(plans)]
        return Report(
            rows=rows,
            protocol=protocol(noise),
            pilots={name: place.cost()} if place else {},
            straightness={name: straightness(v, noise)},
            overhead=overheads(chosen, rivals) if overhead else {},
        )


Play = Callable[[Velocity, Tensor], Tensor]  # (v, noise) -> endpoint
Setup = tuple[dict, Play]


def ours(solvers: list[Solver], calls: Iterable[int], place: Placer | None) -> Iterator[Setup]:
    """Runs this package's solvers on their own grid and on a pilot's, at all evaluations."""
    for solver in solvers:
        if solver.adaptive:
            yield told(solver, "own", 0), partial(play, solver, torch.tensor([0.0, 1.0]))
            continue
        for grid in ("own", "pilot") if place and isinstance(solver.grid, str) else ("own",):
            for asked in calls:
                if spent := affordable(solver, asked):
                    ts = spent if grid == "own" else place(spent, solver)
                    yield told(solver, grid, asked), partial(play, solver, ts)


def row(field: str, who: dict, found: dict) -> Row:
    """Returns one row of the report; adaptive solvers report the evaluations that they took."""
    return Row(field=field, **found, **who | {"asked": who["asked"] or found["calls"]})


def told(solver: Solver, grid: str, asked: int) -> dict:
    return {"library": OURS, "solver": solver.name, "grid": grid, "asked": asked}


def affordable(solver: Solver, calls: int) -> int:
    """Returns the largest number of evaluations up to this one that the solver can use, or 0."""
    for spent in range(calls, 0, -1):
        try:
            solver.steps(spent)
        except ValueError:
            continue
        return spent if spent == calls or isinstance(solver.grid, str) else 0
    return 0


def theirs(rivals: list[Peer], calls: Iterable[int], place: Placer | None) -> Iterator[Setup]:
    """Runs each solver of another library on its own grid, then on a pilot's."""
    for peer in rivals:
        for grid in ("as shipped", "pilot") if place and not peer.stochastic else ("as shipped",):
            for asked in calls:
                if steps := peer.steps(asked):
                    placed = grid != "as shipped" and place(peer.cost(steps), peer.solver)
                    ts = getattr(placed, "ts", placed) if placed is not False else None
                    who = {"library": peer.library, "solver": peer.name, "grid": grid}
                    yield who | {"asked": asked}, partial(peer.play, steps, ts)


class Placer:
    """Finds a pilot's grid for a solver and a number of evaluations, each only once."""

    def __init__(self, v: Velocity, noise: Tensor):
        self.v, self.noise = v, noise
        self.found: dict[tuple[str, int], PilotGrid] = {}

    def __call__(self, calls: int, solver: Solver) -> PilotGrid | Tensor:
        if solver.steps(calls) == 1:
            return uniform(1)
        key = solver.name, calls
        if key not in self.found:
            self.found[key] = pilot_grid(self.v, self.noise, calls, solver)
        return self.found[key]

    def cost(self) -> dict:
        """Returns how many evaluations the search for each grid took, and its number of samples."""
        spent = {f"{name} {calls}": grid.evaluations for (name, calls), grid in self.found.items()}
        return {"samples": len(self.noise), "calls": spent}


def attempt(v: Velocity, noise: Tensor, judge: Callable[[Tensor], dict], play: Play) -> dict:
    """Runs one method once and returns errors, evaluations spent and seconds."""
    counted = count(v)
    start = now(noise)
    x = play(counted, noise)
    return judge(x) | {"calls": counted.calls, "seconds": now(noise) - start}


def problem(text: str) -> Problem:
    """Returns a field by name and options, such as "mixture" or "mixture:dim=64,seed=3"."""
    name, _, rest = text.partition(":")
    if name not in PROBLEMS:
        raise ValueError(f"no field named {name!r}; choose one of {', '.join(PROBLEMS)}")
    pairs = [item.partition("=") for item in rest.split(",") if item]
    try:
        return PROBLEMS[name](**{key: json.loads(value) for key, _, value in pairs})
    except (TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"field {text!r}: {error}; write it as mixture:dim=64,seed=3") from error


def modes(field: Problem) -> Callable[[Tensor], Tensor] | None:
    """Returns a function from endpoints to their most probable mode, for mixtures."""
    weights = getattr(field.velocity, "weights", None)
    return weights and (lambda x: weights(x, 1.0).argmax(-1))


def parser() -> argparse.ArgumentParser:
    p = command_line.parser(__doc__, prog="python -m samplers.benchmark")
    p.add_argument(
        "--field",
        nargs="+",
        default=["mixture:dim=64"],
        help="Measures on fields of samplers.PROBLEMS, such as bend or mixture:dim=64,seed=3.",
    )
    p.add_argument(
        "--solvers",
        nargs="+",
        help="Compares these solvers, given by name. The default is all with fixed steps.",
    )
    p.add_argument(
        "--learned",
        nargs="+",
        default=[],
        help="Adds the learned solvers in these files, each on the field that it was learned for.",
    )
    p.add_argument(
        "--suite",
        choices=[*suite.HALVES, "both"],
        nargs="?",
        const="both",
        help="Prints a page about one solver (auto by default) on a suite of hard fields, or on "
        "one half of it.",
    )
    p.add_argument(
        "--calls",
        nargs="+",
        type=int,
        help="Compares at these numbers of network evaluations. The default is 4 to 64, for a "
        "suite 4 to 32.",
    )
    p.add_argument("--samples", type=int, default=512, help="Starts from this many noises.")
    p.add_argument("--seed", type=int, default=0, help="Seeds the noise.")
    p.add_argument("--no-peers", action="store_true", help="Leaves out other libraries.")
    p.add_argument("--no-pilot", action="store_true", help="Leaves out pilot grids.")
    p.add_argument("--no-overhead", action="store_true", help="Does not time the steps.")
    p.add_argument("--ratios", action="store_true", help="Prints only the ratios of errors.")
    p.add_argument("--csv", metavar="FILE", help="Writes the table to this file.")
    p.add_argument("--json", metavar="FILE", help="Writes the report to this file.")
    p.add_argument(
        "--plot", metavar="FILE", help="Draws the first field into this .png, .svg or .pdf file."
    )
    return p


def main(arguments: list[str] | None = None) -> Report | suite.Page:
    args = parser().parse_args(arguments)
    try:
        report = measure_suite(args) if args.suite else measure(args)
    except ValueError as error:
        raise SystemExit(f"samplers.benchmark: {error}") from error
    if args.suite:
        print(report)
    else:
        print(ratio_table(report) if args.ratios else f"{report}\n\n{ratio_table(report)}")
    if args.csv:
        report.to_csv(args.csv)
    if args.json:
        report.to_json(args.json)
    if args.plot:
        report.plot(args.plot)
    return report


def measure_suite(args: argparse.Namespace) -> suite.Page:
    halves = suite.HALVES if args.suite == "both" else [args.suite]
    if args.csv or args.plot:
        raise ValueError(
            "a suite is printed as a page or written by --json; leave out --csv and --plot, which "
            "are for one field"
        )
    return suite.run(
        args.calls or suite.CALLS,
        halves,
        solver=args.solvers[0] if args.solvers else "auto",
        piloted=not args.no_pilot,
        watch=lambda field: print(field, end=" \r", file=sys.stderr, flush=True),
    )


def measure(args: argparse.Namespace) -> Report:
    solvers = [find(s) for s in args.solvers] if args.solvers else fixed()
    rules = [learned(path) for path in args.learned]
    reports = []
    for text in args.field:
        field = problem(text)
        noise = field.noise(args.samples, seed=args.seed)
        reports.append(
            run(
                field.velocity,
                noise,
                calls=args.calls or CALLS,
                solvers=[*solvers, *(replace(r, name="learned") for r in rules if r.name == text)],
                reference=field.solution(noise),
                others=not args.no_peers,
                pilot=not args.no_pilot,
                basin=modes(field),
                overhead=not args.no_overhead,
                name=text,
            )
        )
    report = sum(reports[1:], reports[0])
    report.protocol["seed"] = args.seed
    return report


if __name__ == "__main__":
    main()
