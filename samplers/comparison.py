"""Compares solvers on one field at equal numbers of network evaluations."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from samplers.benchmark.style import mark, paper, thinned
from samplers.core import Solver, Velocity, count, find, sample
from samplers.states import one_tensor

SOLVERS = ("euler", "heun", "dpmpp_2m", "abm", "auto")
CALLS = (4, 6, 8, 10, 16, 32)


@dataclass(frozen=True)
class Comparison:
    """Errors by solver and number of network evaluations (NFE); NaN where a solver cannot spend
    them.

    An error is the geometric mean over samples of the RMS distance to the reference. It prints as
    text, shows as a table in a notebook, and `figure` draws it.
    """

    errors: dict[str, dict[int, float]]
    samples: int
    reference: str

    @property
    def calls(self) -> list[int]:
        return list(next(iter(self.errors.values())))

    def best(self, calls: int) -> str:
        """Returns the solver with the smallest error at so many evaluations."""
        at = {name: row[calls] for name, row in self.errors.items() if row[calls] == row[calls]}
        return min(at, key=at.__getitem__)

    def __repr__(self) -> str:
        head = f"{'NFE':18}" + "".join(f"{n:>10}" for n in self.calls)
        rows = (
            f"{name:18}" + "".join(f"{_written(e):>10}" for e in row.values())
            for name, row in self.errors.items()
        )
        foot = f"RMS to {self.reference}, geometric mean of {self.samples} samples"
        return "\n".join([head, *rows, foot])

    def _repr_html_(self) -> str:
        best = {n: self.best(n) for n in self.calls}

        def cell(name: str, n: int) -> str:
            text = _written(self.errors[name][n])
            return f"<td><b>{text}</b></td>" if name == best[n] else f"<td>{text}</td>"

        head = "".join(f"<th>{n}</th>" for n in self.calls)
        rows = "".join(
            f"<tr><th>{html.escape(name)}</th>{''.join(cell(name, n) for n in self.calls)}</tr>"
            for name in self.errors
        )
        foot = f"RMS to {html.escape(self.reference)}, geometric mean of {self.samples} samples."
        return f"<table><tr><th>NFE</th>{head}</tr>{rows}<caption>{foot}</caption></table>"

    @paper
    def figure(self) -> Any:
        """Draws the errors over the evaluations on logarithmic axes, with matplotlib."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.add_subplot()
        for place, (name, row) in enumerate(self.errors.items()):
            axes.loglog(list(row), list(row.values()), mark(place), ms=4, label=name)
        ticks = thinned(list(self.calls))
        axes.set_xticks(ticks, [str(n) for n in ticks])
        axes.minorticks_off()
        axes.set_xlabel("network evaluations (NFE)")
        axes.set_ylabel(f"RMS error, geometric mean of n = {self.samples}")
        figure.legend(loc="outside lower center", ncols=4)
        return figure


def compare(
    v: Velocity,
    noise: Tensor,
    solvers: Sequence[str | Solver] = SOLVERS,
    calls: Sequence[int] = CALLS,
    *,
    reference: Tensor | float = 1e-6,
) -> Comparison:
    """Returns the errors of solvers, each on its own grid, at equal numbers of evaluations of v.

    Args:
        noise: the states from which every run starts, (B, ...).
        reference: the exact endpoints, shaped like noise, or a tolerance to compute them with by
            dopri8; that takes hundreds of evaluations.
    """
    one_tensor(noise, "the noise")
    solvers = (solvers,) if isinstance(solvers, str | Solver) else solvers
    calls = (calls,) if isinstance(calls, int) else calls
    chosen = [find(solver) for solver in solvers]
    if isinstance(reference, Tensor) and reference.shape != noise.shape:
        raise ValueError(
            f"the reference has shape {tuple(reference.shape)} and the noise {tuple(noise.shape)}; "
            "pass the endpoint of each state"
        )
    told = "the given ends" if isinstance(reference, Tensor) else f"dopri8 at {reference:g}"
    with torch.no_grad():
        if not isinstance(reference, Tensor):
            reference = endpoints(v, noise, reference)
        errors = {
            one.name: {n: _error(v, noise, n, one, reference) for n in calls} for one in chosen
        }
    return Comparison(errors, len(noise), told)


def endpoints(v: Velocity, noise: Tensor, tolerance: float) -> Tensor:
    """Returns the endpoints of the flow by dopri8 at this tolerance, restarted where v jumps."""
    tight = {"rtol": tolerance, "atol": tolerance, "max_calls": 10**6}
    stops = [0.0, *(t for t in getattr(v, "jumps", ()) if 0 < t < 1), 1.0]
    return sample(v, noise, stops, "dopri8", **tight)


def _error(v: Velocity, noise: Tensor, calls: int, solver: Solver, reference: Tensor) -> float:
    try:
        solver.steps(calls)
    except ValueError:
        return float("nan")
    return mean_error(sample(count(v), noise, calls, solver, nonfinite="return"), reference)


def mean_error(x: Tensor, reference: Tensor) -> float:
    """Returns the geometric mean over samples of the RMS distance to the reference, (B, ...)."""
    square = (x - reference).square().flatten(1).mean(1).cpu().double()
    return float((square.log().mean() / 2).exp())


def _written(error: float) -> str:
    return "-" if error != error else f"{error:.2e}"
