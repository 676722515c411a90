"""Finds a grid for one field from a few samples.

The samples, at few evaluations also their mirror images, are first integrated accurately. Then the
solver's own grid and one with equal shares of the local error are tried on them, and the better one
is tilted as long as the endpoint error falls. For `auto` the solver is chosen too, and its last
step is fitted to some of the samples if that helps the others. A choice that increases the error
of most samples is rejected. Everything is counted in evaluations of v.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise, product
from numbers import Integral
from pathlib import Path as File
from typing import Any

import torch
from torch import Tensor

from samplers.core import (
    SOLVERS,
    Solver,
    Velocity,
    count,
    find,
    refuse_vmap,
    sample,
    times,
    trajectory,
)
from samplers.fields import Wrapped, time_shift_of
from samplers.grids import at_jumps, interpolate, pieces, pin, place_at, uniform
from samplers.safe_json import read_json
from samplers.search.regression import corrected
from samplers.solvers.auto import adapts, tilt_steps, tilted
from samplers.solvers.linear_multistep import Learned, assemble, linearize
from samplers.states import one_tensor

FINE = 64  # calls of the fine pass, at least
LOOKS = 800  # calls spent on trials, about, unless told otherwise
TILTS = 6  # polynomials that the search may add to the logarithm of the steps
RESERVE = 0.5  # what a tilt has to gain, so that eight samples do not bend the grid to themselves
MARGIN = 0.85  # and any other choice, against what was best before it, in the end the own grid
LUCK = 0.1  # of the mean squared error, added to that of each sample
MIRRORED = 4  # evaluations up to which eight samples say too little, so that noise is mirrored
FORMAT = "samplers pilot grid 2"
BEFORE = "samplers pilot grid 1"  # without `asked` and `weights`, still read


@dataclass(frozen=True)
class PilotGrid:
    """A grid for `sample`, with a record of how it was found."""

    times: tuple[float, ...]
    solver: str
    samples: int  # that the pilot flew with, one batch
    evaluations: int  # of the network on that batch
    error: float  # at the end on these samples, geometric mean of the RMS
    before: float  # the same on the solver's own grid
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the field, as the caller says
    asked: str = ""  # the solver that it was to be for; "auto" takes what the pilot chose
    weights: tuple[tuple[float, ...], ...] | None = None  # of a rule fitted to the samples

    def __iter__(self) -> Iterator[float]:
        return iter(self.times)

    def __len__(self) -> int:
        return len(self.times)

    @property
    def ts(self) -> Tensor:
        """The times as a tensor, (n + 1,)."""
        return torch.tensor(self.times, dtype=torch.float64, device="cpu")

    @property
    def chosen(self) -> Solver:
        """The solver to run on this grid, or the rule with its fitted weights."""
        if self.weights is None:
            return find(self.solver)
        weights = torch.zeros(len(self), len(self), dtype=torch.float64, device="cpu")
        for i, row in enumerate(self.weights):
            weights[i, : i + 1] = torch.tensor(row, dtype=torch.float64, device="cpu")
        return assemble(f"{self.solver}, fitted", self.ts, weights, {})

    @property
    def runs(self) -> str | Solver:
        """The name of the chosen solver, if it has one."""
        return self.solver if self.weights is None else self.chosen

    def chosen_for(self, solver: Solver) -> Solver:
        """Returns the chosen solver if the grid was made for `solver`, otherwise `solver`."""
        return self.chosen if solver.name == self.asked else solver

    @property
    def fingerprint(self) -> str:
        """A hash of the settings; equal hashes mean that two grids were made for the same field."""
        return _fingerprint(self.settings)

    def save(self, path: str | File) -> None:
        """Writes the grid to a JSON file, which `PilotGrid.load` reads."""
        content = {"format": FORMAT, "fingerprint": self.fingerprint, **asdict(self)}
        File(path).write_text(json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | File, settings: Mapping[str, Any] | None = None) -> PilotGrid:
        """Reads a grid. Raises ValueError if it was made for a field with other settings."""
        content = read_json(path)
        if not isinstance(content, dict) or content.pop("format", None) not in (FORMAT, BEFORE):
            raise ValueError(f"{path} is not a grid saved by PilotGrid.save; make one with pilot()")
        known = content.pop("fingerprint", None)
        try:
            rows = content.get("weights")
            tuples = {"times": tuple(float(t) for t in content["times"])}
            tuples |= {"weights": rows and tuple(tuple(map(float, row)) for row in rows)}
            made = cls(**content | tuples)
            made.settings.keys()
            times(made, made.chosen)
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as missing:
            raise ValueError(
                f"{path} lacks what a grid needs ({missing}); create it again with pilot()"
            ) from None
        if known != made.fingerprint or (settings is not None and made.settings != dict(settings)):
            raise ValueError(
                f"{path} was made for {dict(made.settings)}, not for {dict(settings or {})}; "
                "make a grid for this field with pilot()"
            )
        return made


def pilot(
    v: Velocity,
    noise: Tensor,
    calls: int,
    solver: str | Solver = "auto",
    *,
    looks: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> PilotGrid:
    """Returns a grid for this field, solver and number of evaluations, from a few samples of noise
    (B, ...).

    For "auto" other solvers are tried too, and the weights of their last step are fitted to the
    samples; `sample(v, noise, found, "auto")` then runs the best. With up to four evaluations a
    run is repeated from -noise, unless the noise is not distributed about zero.

    Args:
        looks: the number of trial runs with `calls` evaluations each; by default 800 evaluations in
            all, but at least 12 runs. `auto` is tried once more as a linear rule.
        settings: what identifies the field (model, prompt, guidance); saved with the grid.
    """
    solver, noise = find(solver), one_tensor(noise, "the noise")
    refuse_vmap("pilot compares runs by", "give it all samples as one batch (B, ...)")
    if isinstance(calls, bool) or not isinstance(calls, Integral) or calls < 1:
        raise ValueError(f"calls is {calls!r:.60}; expected a whole number of at least 1")
    mirrors = calls <= MIRRORED and centred(noise)
    looks = max(12, LOOKS // calls // (1 + mirrors)) if looks is None else looks
    counted = count(v)
    with torch.no_grad():
        chooses = solver == SOLVERS["auto"]
        both = (Mirrored(counted), torch.cat((noise, -noise))) if mirrors else (counted, noise)
        flight = Flight(*both, calls, corrects=chooses)
        own = times(calls, solver, flight.jumps, time_shift_of(v))
        first = best = flight.look(own, solver)
        before = best.plain
        linear = first
        if flight.corrects and adapts(own):  # only what is linear can be fitted
            linear = flight.look(own, solver.linear)
            best = min(first, linear, key=_error)
        others = candidates(calls)[: max(0, looks - 2)] if chooses else []
        for other in others:
            best = flight.better(best, other, other.grid(other.steps(calls)))
        starts = [first, linear] if best is first and linear is not first else [best]
        left = (looks - 2 - len(others)) // len(starts)
        best = min((_placed(flight, start, left) for start in starts), key=_error)
        if best.error >= MARGIN * before or best.loses(first):
            best = replace(first, error=before, changes=None)
    made = best.rule(flight.time_shift)
    return PilotGrid(
        times=tuple((best.ts if made is None else made.nodes).tolist()),
        solver=best.solver.name if made is None else solver.name,
        samples=len(noise),
        evaluations=counted.calls,
        error=best.error,
        before=before,
        settings=dict(settings or {}),
        asked=solver.name,
        weights=made and tuple(tuple(w[: i + 1].tolist()) for i, w in enumerate(made.weights)),
    )


def centred(noise: Tensor) -> bool:
    """Returns whether the mean is within four standard errors of zero, as it is for noise."""
    return bool(noise.mean().abs() <= 4 * noise.std(correction=0) / math.sqrt(noise.numel()))


class Mirrored(Wrapped):
    """A velocity of twice the samples, in two evaluations of as many as it was made for."""

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.cat([self.v(half, t).clone() for half in x.chunk(2)])


OTHERS = ("fireflow", "abm3", "abm2", "midpoint", "dpmpp_3m", "abm", "ralston", "dpmpp_2m")
SMOOTH = ("kutta4",)  # for fields that need no grid of theirs


def candidates(calls: int) -> list[Solver]:
    """Returns other solvers for so many evaluations, on the grid of `auto` or on even steps."""
    able = []
    for name in (*OTHERS, *SMOOTH):
        with suppress(ValueError):
            SOLVERS[name].steps(calls)
            able.append(replace(SOLVERS[name], grid=uniform if name in SMOOTH else whole_tilted))
    return able


def whole_tilted(n: int) -> Tensor:
    """Returns the grid of `auto` with a whole first step: others gain little by an accurate one."""
    return tilted(n, first=1.0)


@dataclass(frozen=True)
class Trial:
    """A trial: its error, and its error without the changes of its last step."""

    error: float
    plain: float
    each: Tensor  # RMS error of each sample, (B,)
    ts: Tensor
    solver: Solver
    changes: Tensor | None  # of the weights of the last state, one per velocity

    def loses(self, other: Trial) -> bool:
        """Returns whether more than half of the samples have a larger error than in another trial.

        The mean error would not do: it depends on a few samples, which a grid may help by chance.
        """
        return bool((self.each > other.each).float().mean() > 0.5)

    def rule(self, time_shift: float) -> Learned | None:
        """The solver on the grid as a rule of its own, unless its name says all of it."""
        named = SOLVERS.get(self.solver.name, self.solver)
        if self.changes is None and self.solver.path is named.path:
            return None
        nodes, weights = linearize(self.solver, self.ts, time_shift)
        if self.changes is not None:
            weights[-1, 1:] += self.changes
        return assemble(f"{self.solver.name}, fitted", nodes, weights, {})


class Flight:
    """A few samples with accurate endpoints, on which trials are evaluated."""

    def __init__(self, v: Velocity, noise: Tensor, calls: int, corrects: bool):
        self.v, self.noise, self.calls = v, noise, calls
        self.jumps = tuple(getattr(v, "jumps", ()))
        self.time_shift = time_shift_of(v)
        self.corrects = corrects and not self.jumps  # a rule of one piece cannot begin anew
        ts = at_jumps(tilted(max(FINE, 4 * calls)), self.jumps)
        self.fine = list(trajectory(v, noise, ts, "abm"))
        self.end = self.fine[-1][1]

    def look(self, ts: Tensor, solver: Solver) -> Trial:
        """Runs one trial; the last step is corrected if this helps other samples."""
        past: list[Tensor] = []
        at: list[float] = []

        def told(x: Tensor, t: Tensor) -> Tensor:
            past.append(self.v(x, t).clone())
            at.append(float(t))
            return past[-1]

        told.jumps, told.time_shift = self.jumps, self.time_shift
        missing = self.end - sample(told, self.noise, ts, solver, nonfinite="return")
        leaning = solver.linear is not solver and adapts(ts)
        rising = all(t < s for t, s in pairwise([*at, float(ts[-1])]))  # as a rule's times do
        left, changes = missing, None
        if self.corrects and not leaning and rising:
            left, changes = corrected(past, missing, missed)
        return Trial(missed(left), missed(missing), rms(left), ts, solver, changes)

    def better(self, best: Trial, solver: Solver, ts: Tensor) -> Trial:
        """Returns the best trial so far, or this one if it gains enough and costs no more."""
        ts = at_jumps(ts, self.jumps, solver.calls, solver.order)
        cost = sum(solver.cost(len(part) - 1) for part in pieces(ts, self.jumps))
        if cost > self.calls:
            return best
        found = self.look(ts, solver)
        return found if found.error < MARGIN * best.error else best


def rms(x: Tensor) -> Tensor:
    """Returns the root mean square of each sample, (B, ...) -> (B,)."""
    return x.flatten(1).square().mean(1).sqrt()


def missed(x: Tensor) -> float:
    """Returns the geometric mean over samples of the RMS of x (B, ...), infinite if one of them is.

    A small fraction of the mean square is added to each sample's, so that a sample that is accurate
    by chance does not dominate.
    """
    square = x.flatten(1).square().mean(1).cpu().double()
    e = float(((square + LUCK * square.mean()).log().mean() / 2).exp())
    return e if math.isfinite(e) else math.inf


def equal_shares(fine: list[tuple[Tensor, Tensor]], n: int, order: int | None) -> Tensor:
    """Returns n steps with equal parts of the integral of |x''|^(1 / (order + 1)).

    A solver of that order has an error proportional to h^(order + 1) per step; a tenth of the mean
    is added so that no part of the path is left out.
    """
    ts = torch.stack([t for t, _ in fine])
    slopes = [(y - x) / float(b - a) for (a, x), (b, y) in pairwise(fine)]
    middles = (ts[1:] + ts[:-1]) / 2
    bends = [float((q - p).square().mean().sqrt()) for p, q in pairwise(slopes)]
    rate = torch.tensor(bends, dtype=torch.float64, device="cpu") / middles.diff()
    if not bool(rate.isfinite().all()) or rate.max() <= 0:
        return uniform(n)
    density = (rate + rate.mean() / 10) ** (1 / ((order or 1) + 1))
    density = interpolate(middles, ts[1:-1], density)  # back onto the steps, constant at the ends
    share = torch.cat(
        [torch.zeros(1, dtype=torch.float64, device="cpu"), (density * ts.diff()).cumsum(0)]
    )
    return pin(interpolate(uniform(n), share / share[-1], ts))


def _placed(flight: Flight, start: Trial, looks: int) -> Trial:
    """Places the steps of a trial: with equal shares of the error or as they are, then tilted."""
    shares = equal_shares(flight.fine, len(start.ts) - 1, start.solver.order)
    return _descend(flight, flight.better(start, start.solver, shares), looks)


def _error(trial: Trial) -> float:
    return trial.error


def _descend(flight: Flight, start: Trial, looks: int) -> Trial:
    """Tilts the steps of `start`, one polynomial after another, with halved strides."""
    best, lowest, tilt, stride = start, start.error, [0.0] * TILTS, 0.3
    while looks > 0 and stride > 0.01 and best.error > 0:
        moved = False
        for k, change in product(range(TILTS), (stride, -stride)):
            if looks <= 0:
                break
            tried = [a + change * (i == k) for i, a in enumerate(tilt)]
            looks -= 1
            ts = place_at(tilt_steps(start.ts, tried), flight.jumps, start.solver.calls)
            found = flight.look(ts, start.solver)
            price = found.error * math.exp(RESERVE * sum(a * a for a in tried))
            if price < lowest:
                best, lowest, tilt, moved = found, price, tried, True
        stride = stride if moved else stride / 2
    return best


def _fingerprint(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode()).hexdigest()[:16]
