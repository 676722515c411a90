"""Quality presets: the solver, grid and guidance interval that `quality=` of a pipeline selects."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

import samplers
from janusflow.pipelines.flow_maps import SAMPLER, FlowMapGrid
from janusflow.pipelines.time_grid import listed, time_grid
from janusflow.utils import hub
from janusflow.utils.keywords import choice
from samplers.core import find, times
from samplers.fields import jumps_of
from samplers.grids import at_jumps

FLOW_MAP = "flow_map"  # among a model's grids


@dataclass(frozen=True, kw_only=True)
class Quality:
    """A solver, its steps and grid, and the times between which guidance acts."""

    sampler: str | samplers.Solver = "euler"
    steps: int = 30
    grid: object = None  # the solver's own
    guided: tuple[float, float] = (0.0, 1.0)

    def path(self, guidance_scale: object = 1.0) -> tuple[samplers.Solver, Tensor]:
        """Returns the solver and its times; a named grid gets a time at each jump of the guidance.

        Raises ValueError for times that do not lead from noise to data.
        """
        solver = find(self.sampler)
        ts = times(time_grid(solver, self.steps, self.grid, self.rule(guidance_scale)), solver)
        if not 0 <= float(ts[0]) < float(ts[-1]) <= 1:
            raise ValueError(
                f"the grid runs from {float(ts[0]):.6g} to {float(ts[-1]):.6g}; noise is at 0 and "
                "data at 1, so give times that rise between them (1 - sigma for diffusers' sigmas)"
            )
        named = isinstance(solver.grid if self.grid is None else self.grid, str)
        if not named:
            return solver, ts
        jumps = jumps_of(self.rule(guidance_scale))
        return solver, at_jumps(ts, jumps, solver.calls, solver.order)

    def rule(self, guidance_scale):
        """Returns the guidance rule, restricted to the interval `guided`."""
        if self.guided == (0.0, 1.0):
            return guidance_scale
        return samplers.guidance_interval(guidance_scale, *self.guided)

    def written(self, guidance: str) -> str:
        """Returns the rule as text for the command line. Raises ValueError if it has none."""
        if self.guided == (0.0, 1.0):
            return guidance
        try:
            weight = float(guidance)
        except ValueError:
            raise ValueError(
                f"guidance {guidance!r} is a rule, and this quality already sets a guidance "
                "interval; give a number, or leave the quality out"
            ) from None
        return f"guidance_interval:{weight:g},{self.guided[0]:g},{self.guided[1]:g}"

    def told(self) -> dict[str, str | int]:
        """Returns the settings for an image's metadata."""
        sampler = self.sampler if isinstance(self.sampler, str) else self.sampler.name
        start, stop = self.guided
        grid = grid_text(self.grid)
        return dict(sampler=sampler, steps=self.steps, grid=grid, guided=f"{start:g} to {stop:g}")


# What each costs and scores is measured in docs/speed.md.
QUALITIES = {
    "exact": Quality(),  # the published solver and calls
    "high": Quality(sampler="abm", steps=16),
    "fast": Quality(sampler="abm", steps=8, guided=(0.0, 0.6)),
    "draft": Quality(sampler="abm", steps=5, guided=(0.0, 0.6)),
}


def resolve(name: str, grids: Mapping[str, samplers.PilotGrid] | None = None, **given) -> Quality:
    """Returns the preset with the caller's values (those not None).

    Raises ValueError for an unknown name.

    A model's own pilot grid of that name (`grids`, from `read_grids`) replaces the preset's solver,
    steps, grid and guidance interval, unless one of the first three is given. A model that is a
    flow map jumps between its own times in `steps` evaluations, unless a sampler or grid is given.
    """
    choice("no quality named", name, QUALITIES)
    given = {k: v for k, v in given.items() if v is not None}
    quality = QUALITIES[name]
    if (learned := (grids or {}).get(FLOW_MAP)) and not {"sampler", "grid"} & given.keys():
        return jumps(learned, _fewest(learned, given.get("steps"), name))
    if not given and (pilot := (grids or {}).get(name)):
        given = dict(sampler=pilot.runs, grid=pilot.ts, guided=guided_times(pilot, quality))
    if "grid" in given:
        given["grid"] = listed(given["grid"])
    if isinstance(grid := given.get("grid"), Tensor):
        steps = given.setdefault("steps", len(grid) - 1)
        if steps != len(grid) - 1:
            raise ValueError(
                f"the grid has {len(grid)} times, which are {len(grid) - 1} steps, and steps is "
                f"{steps}; leave out one of them"
            )
    return replace(quality, **given)


def _fewest(learned: FlowMapGrid, steps: int | None, name: str) -> int | None:
    """Returns the requested evaluations; for "draft" the flow map's fewest above one."""
    few = min([n for n in learned.evaluations if n > 1] or learned.evaluations)
    return few if steps is None and name == "draft" else steps


def jumps(learned: FlowMapGrid, evaluations: int | None) -> Quality:
    """Returns a flow map's own times for so many evaluations, by default the most."""
    ts = learned.cut(evaluations)
    return Quality(sampler=SAMPLER, steps=len(ts) - 1, grid=ts)


def guided_times(pilot: samplers.PilotGrid, quality: Quality) -> tuple[float, float]:
    """Returns the guidance interval for which the grid was optimised."""
    told = pilot.settings.get("guided", quality.guided)
    match told:
        case [int() | float() as start, int() | float() as stop] if 0 <= start <= stop <= 1:
            return float(start), float(stop)
    raise ValueError(
        f"a pilot grid has invalid guidance times {told!r:.60}; create the grid again with "
        "janusflow pilot"
    )


def read_grids(folder: Path) -> dict[str, samplers.PilotGrid]:
    """Returns the pilot grids beside a model's weights by preset; a flow map's are "flow_map"."""
    paths = {name: grid_file(folder, name) for name in (*QUALITIES, FLOW_MAP)}
    kinds = {FLOW_MAP: FlowMapGrid}
    return {
        name: kinds.get(name, samplers.PilotGrid).load(path)
        for name, path in paths.items()
        if path.is_file()
    }


def grid_text(grid: object) -> str:
    """Returns times, or the name of their rule, as text that `read_grid` reads."""
    if isinstance(grid, Tensor):
        return " ".join(f"{t:.9g}" for t in grid.tolist())
    return "" if grid is None else str(grid)


def read_grid(text: str | None) -> str | Tensor | None:
    """Returns a grid given by name, by times such as "0 0.3 1", or by `janusflow pilot`'s file."""
    if not text or text in samplers.GRIDS:
        return text or None
    if text.endswith(".json"):
        return samplers.PilotGrid.load(text).ts
    try:
        return torch.tensor([float(t) for t in text.split()], dtype=torch.float64)
    except ValueError:
        raise ValueError(
            f"no grid named {text!r:.80}; choose one of {', '.join(samplers.GRIDS)}, times from 0 "
            "to 1 such as '0 0.3 1', or a file of `janusflow pilot`"
        ) from None


def grid_file(folder: Path, name: str) -> Path:
    return Path(folder) / (hub.FLOW_MAP if name == FLOW_MAP else f"pilot-{name}.json")
