"""Error against calls for any field: ours, everybody else's as shipped, theirs on our grid.

    python -m samplers.benchmark --field mixture64 --calls 4 8 16 --plot work.png

e is the geometric mean over samples of the RMS endpoint error, "detail"; beside it stand the plain
RMS and the share of basin flips, which one outlier in 512 already moves.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise

import torch
from torch import Tensor

from .core import SOLVERS, Solver, Velocity, count, find, sample, trajectory
from .grids import uniform
from .peers import Peer, peers
from .report import OURS, Report, Row

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
    name: str = "field",
) -> Report:
    """Measures solvers and peers on one field from the same noise, (B, ...).

    Args:
        calls: the budgets; who cannot spend one exactly spends what fits, ours included, and is
            marked with a star.
        solvers: ours, by name or as they are; None for all with fixed steps and no noise.
        reference: the endpoints, shaped like noise, or a tolerance to find them with by dopri8 in
            the dtype of the noise; 1e-10 wants float64.
        others: False for ours alone, or the peers to run.
        pilot: also run everything on grids placed by a pilot; the noise for it (default the first
            eight of `noise`), or False for none.
        basin: endpoint -> integer label of its mode, (B,), to count flips.
        name: of the field, in the report.
    """
    chosen = [find(s) for s in solvers] if solvers is not None else fixed()
    rivals = list(peers().values()) if others is True else list(others or ())
    place = placer(v, noise[:8] if pilot is True else pilot) if pilot is not False else None
    with torch.no_grad():
        if not isinstance(reference, Tensor):
            reference = endpoints(v, noise, reference)
        trial = partial(attempt, v, noise, judged(reference, basin))
        plans = [*ours(chosen, calls, place), *theirs(rivals, calls, place)]
        rows = [Row(field=name, **who, **trial(play)) for who, play in plans]
        return Report(
            rows=rows,
            protocol=protocol(noise),
            straightness={name: straightness(v, noise)},
            overhead=overheads(chosen, rivals),
        )


Play = Callable[[Velocity, Tensor], Tensor]  # (v, noise) -> endpoint
Plan = tuple[dict, Play]
Place = Callable[[int, "str | Solver"], Tensor]  # (calls, solver) -> grid


def fixed() -> list[Solver]:
    """Our solvers that take a grid and no noise."""
    return [s for s in SOLVERS.values() if not (s.adaptive or s.stochastic)]


def endpoints(v: Velocity, noise: Tensor, tolerance: float) -> Tensor:
    """Where the exact flow ends, by dopri8 at this tolerance."""
    tight = {"rtol": tolerance, "atol": tolerance, "max_calls": 10**6}
    return sample(v, noise, [0, 1], "dopri8", **tight)


def ours(solvers: list[Solver], calls: Iterable[int], place: Place | None) -> Iterator[Plan]:
    """Each solver on its own grid, then on the pilot's, at every budget it can use."""
    for solver in solvers:
        if solver.adaptive:
            yield told(solver, "own", 0), partial(play, solver, torch.tensor([0.0, 1.0]))
            continue
        for grid in ("own", "pilot") if place and isinstance(solver.grid, str) else ("own",):
            for budget in calls:
                if spent := affordable(solver, budget):
                    ts = spent if grid == "own" else place(spent, solver)
                    yield told(solver, grid, budget), partial(play, solver, ts)


def told(solver: Solver, grid: str, asked: int) -> dict:
    return {"library": OURS, "solver": solver.name, "grid": grid, "asked": asked}


def play(solver: Solver, ts: Tensor | int, v: Velocity, noise: Tensor) -> Tensor:
    if solver.stochastic:
        solver = solver.with_options(generator=torch.Generator().manual_seed(0))
    return sample(v, noise, ts, solver, nonfinite="return")


def affordable(solver: Solver, calls: int) -> int:
    """The largest number of calls, at most this many, that the solver can spend; 0 if none."""
    for spent in range(calls, 0, -1):
        try:
            solver.steps(spent)
        except ValueError:
            continue
        return spent if spent == calls or isinstance(solver.grid, str) else 0
    return 0


def theirs(rivals: list[Peer], calls: Iterable[int], place: Place | None) -> Iterator[Plan]:
    """Each peer as shipped, then with as many steps of the pilot's grid for `auto`."""
    for peer in rivals:
        for grid in ("as shipped", "pilot") if place else ("as shipped",):
            for asked in calls:
                if steps := peer.steps(asked):
                    ts = None if grid == "as shipped" else place(steps, "auto")
                    who = {"library": peer.library, "solver": peer.name, "grid": grid}
                    yield who | {"asked": asked}, partial(peer.play, steps, ts)


def placer(v: Velocity, noise: Tensor) -> Place:
    """A pilot's grid for a number of calls and a solver, each looked for once."""
    from .pilot import pilot

    looks: dict[tuple[int, str], Tensor] = {}

    def place(calls: int, solver: str | Solver) -> Tensor:
        key = calls, solver if isinstance(solver, str) else solver.name
        if key not in looks:
            looks[key] = pilot(v, noise, calls, solver)
        return looks[key]

    return place


def attempt(v: Velocity, noise: Tensor, judge: Callable[[Tensor], dict], play: Play) -> dict:
    """Runs once: errors, calls spent, seconds."""
    counted = count(v)
    start = now(noise)
    x = play(counted, noise)
    return judge(x) | {"calls": counted.calls, "seconds": now(noise) - start}


def now(x: Tensor) -> float:
    """Seconds, after whatever still runs where x lives."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter()


def judged(
    reference: Tensor, basin: Callable[[Tensor], Tensor] | None = None
) -> Callable[[Tensor], dict]:
    """endpoint -> e, rms, flips, against the endpoints of the reference."""
    mode = basin(reference) if basin else None

    def judge(x: Tensor) -> dict:
        square = (x.to(reference.dtype) - reference).square().flatten(1).mean(1)
        return {
            "e": float((square.log().mean() / 2).exp()),
            "rms": float(square.mean().sqrt()),
            "flips": float((basin(x) != mode).double().mean()) if basin else None,
        }

    return judge


def straightness(v: Velocity, noise: Tensor, steps: int = 32) -> float:
    """Integral of E |v - (x1 - x0)|^2 over E |x1 - x0|^2: 0 for straight paths walked evenly.

    By Heun's rule, v as the difference of successive states. Liu et al. 2023 (rectified flow),
    section 2.2, made free of units.
    """
    states = [x for _, x in trajectory(v, noise, uniform(steps), "heun", nonfinite="return")]
    chord = states[-1] - states[0]
    bends = [(steps * (b - a) - chord).square().mean() for a, b in pairwise(states)]
    return float(torch.stack(bends).mean() / chord.square().mean())


def overheads(solvers: list[Solver], rivals: list[Peer]) -> dict[tuple[str, str], float]:
    """Microseconds per step beside the network, by (library, name): a tiny state, v for free.

    The difference between 64 and 32 steps, so that what a run costs once does not count.
    """
    noise = torch.zeros(1, 4)
    out = {}
    for solver in solvers:
        if not solver.adaptive and isinstance(solver.grid, str):
            out[OURS, solver.name] = per_step(lambda n, s=solver: play(s, uniform(n), still, noise))
    for peer in rivals:
        out[peer.library, peer.name] = per_step(lambda n, p=peer: p.play(n, None, still, noise))
    return out


def still(x: Tensor, t: Tensor) -> Tensor:  # noqa: ARG001
    """A velocity that costs nothing: x itself."""
    return x


def per_step(walk: Callable[[int], object], steps: int = 32, repeats: int = 5) -> float:
    def seconds(n: int) -> float:
        start = time.perf_counter()
        walk(n)
        return time.perf_counter() - start

    walk(steps)
    fast, slow = (min(seconds(n) for _ in range(repeats)) for n in (steps, 2 * steps))
    return max(0.0, (slow - fast) / steps * 1e6)


def protocol(noise: Tensor) -> dict:
    """What a reader needs to run it again."""
    return {
        "samples": len(noise),
        "shape": list(noise.shape[1:]),
        "dtype": str(noise.dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(noise.device) if noise.is_cuda else str(noise.device),
        "machine": f"{platform.machine()} {platform.system()}",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: installed(name) for name in LIBRARIES},
        "e": "geometric mean over samples of the RMS endpoint error",
        "time": "seconds of a single run; overhead in microseconds per step, best of 5",
    }


LIBRARIES = ("torch", "diffusers", "torchdiffeq", "flow_matching")


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
