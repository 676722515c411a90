"""A grid for one field, found by a look at it with a handful of samples.

The samples are first integrated finely. The solver's own grid and one at equal shares of the local
error seen there are then tried on them; the better one is tilted as long as the error at the
end goes down. All of it is calls of v, and their number is reported.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path as File
from typing import Any

import torch
from torch import Tensor

from samplers.core import Solver, Velocity, count, find, sample, times, trajectory
from samplers.files import read_json
from samplers.grids import interpolate, pin, uniform
from samplers.solvers.auto import tilt_steps

FINE = 64  # calls of the fine pass, at least
LOOKS = 800  # calls spent on trials, about, unless told otherwise
TILTS = 6  # polynomials that the search may add to the logarithm of the steps
RESERVE = 0.5  # what a tilt has to gain, so that eight samples do not bend the grid to themselves
MARGIN = 0.7  # and equal shares, against the solver's own grid
FORMAT = "samplers pilot grid 1"


@dataclass(frozen=True)
class PilotGrid:
    """A grid that `sample` takes like any other, and how it came about."""

    times: tuple[float, ...]
    solver: str
    samples: int  # that the pilot flew with, one batch
    evaluations: int  # of the network on that batch
    error: float  # at the end on these samples, geometric mean of the RMS
    before: float  # the same on the solver's own grid
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the field, as the caller says

    def __iter__(self) -> Iterator[float]:
        return iter(self.times)

    def __len__(self) -> int:
        return len(self.times)

    @property
    def ts(self) -> Tensor:
        """The times as a tensor, (n + 1,)."""
        return torch.tensor(self.times, dtype=torch.float64)

    @property
    def fingerprint(self) -> str:
        """A hash of the settings: two grids with the same one were made for the same field."""
        return _fingerprint(self.settings)

    def save(self, path: str | File) -> None:
        """Writes JSON."""
        content = {"format": FORMAT, "fingerprint": self.fingerprint, **asdict(self)}
        File(path).write_text(json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | File, settings: Mapping[str, Any] | None = None) -> PilotGrid:
        """Reads it back; ValueError if it was made for a field with other settings than these."""
        content = read_json(path)
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise ValueError(f"{path} is not a grid saved by PilotGrid.save; make one with pilot()")
        known = content.pop("fingerprint", None)
        try:
            made = cls(**content | {"times": tuple(float(t) for t in content["times"])})
            made.settings.keys()
            times(made, find(made.solver))
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as missing:
            raise ValueError(f"{path} lacks what a grid needs ({missing}); make it anew") from None
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
    """A grid for this field, solver and number of calls from a few samples of noise, (B, ...).

    Args:
        looks: trial runs of `calls` calls each; by default as many as make 800 calls, 12 at least.
        settings: what identifies the field (model, prompt, guidance); saved with the grid.
    """
    solver = find(solver)
    own = times(calls, solver)
    looks = max(12, LOOKS // calls) if looks is None else looks
    counted = count(v)
    with torch.no_grad():
        fine = list(trajectory(counted, noise, max(FINE, 4 * calls), "auto"))
        trial = _trial(counted, noise, fine[-1][1], solver)
        before = trial(own)
        shares = equal_shares(fine, len(own) - 1, solver.order)
        bent = trial(shares)
        start = (bent, shares) if bent < MARGIN * before else (before, own)
        error, ts = _descend(trial, *start, looks - 2)
    return PilotGrid(
        times=tuple(ts.tolist()),
        solver=solver.name,
        samples=len(noise),
        evaluations=counted.calls,
        error=error,
        before=before,
        settings=dict(settings or {}),
    )


Trial = Callable[[Tensor], float]  # grid -> error


def _trial(v: Velocity, noise: Tensor, end: Tensor, solver: Solver) -> Trial:
    def error(ts: Tensor) -> float:
        x = sample(v, noise, ts, solver, nonfinite="return")
        square = (x - end).double().square().flatten(1).mean(1)
        e = float((square.log().mean() / 2).exp())
        return e if math.isfinite(e) else math.inf

    return error


def equal_shares(fine: list[tuple[Tensor, Tensor]], n: int, order: int | None) -> Tensor:
    """n steps with the same part of the integral of |x''|^(1 / (order + 1)) each.

    A rule of that order errs in proportion to h^(order + 1) in a step; a tenth of the mean is added
    so that no stretch of the path is left out.
    """
    ts = torch.stack([t for t, _ in fine])
    slopes = [(y - x) / float(b - a) for (a, x), (b, y) in pairwise(fine)]
    middles = (ts[1:] + ts[:-1]) / 2
    bends = [float((q - p).double().square().mean().sqrt()) for p, q in pairwise(slopes)]
    rate = torch.tensor(bends, dtype=torch.float64) / middles.diff()
    if not bool(rate.isfinite().all()) or rate.max() <= 0:
        return uniform(n)
    density = (rate + rate.mean() / 10) ** (1 / ((order or 1) + 1))
    density = interpolate(middles, ts[1:-1], density)  # back onto the steps, constant at the ends
    share = torch.cat([torch.zeros(1, dtype=torch.float64), (density * ts.diff()).cumsum(0)])
    return pin(interpolate(uniform(n), share / share[-1], ts))


def _descend(trial: Trial, best: float, start: Tensor, looks: int) -> tuple[float, Tensor]:
    """Tilts the steps of `start`, one polynomial after the other, by strides that are halved."""
    lowest, ts, tilt, stride = best, start, [0.0] * TILTS, 0.3
    while looks > 0 and stride > 0.01 and best > 0:
        moved = False
        for k in range(TILTS):
            for change in (stride, -stride):
                if looks <= 0:
                    break
                tried = [a + change * (i == k) for i, a in enumerate(tilt)]
                looks -= 1
                grid = tilt_steps(start, tried)
                error = trial(grid)
                price = error * math.exp(RESERVE * sum(a * a for a in tried))
                if price < lowest:
                    lowest, best, ts, tilt, moved = price, error, grid, tried, True
                    break
        stride = stride if moved else stride / 2
    return best, ts


def _fingerprint(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode()).hexdigest()[:16]
