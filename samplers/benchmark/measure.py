"""The benchmark's measurements: references, errors, overhead and protocol."""

import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor

from samplers.benchmark.peers import Peer
from samplers.benchmark.summary import OURS
from samplers.comparison import mean_error
from samplers.core import SOLVERS, Solver, Velocity, sample
from samplers.grids import uniform


def judged(
    reference: Tensor, basin: Callable[[Tensor], Tensor] | None = None
) -> Callable[[Tensor], dict]:
    """Returns a function from endpoints to e, rms and flips, relative to the reference."""
    mode = basin(reference) if basin else None

    def judge(x: Tensor) -> dict:
        return {
            "e": mean_error(x, reference),
            "rms": float((x - reference).square().mean().sqrt()),
            "flips": float((basin(x) != mode).double().mean()) if basin else None,
        }

    return judge


def now(x: Tensor) -> float:
    """Returns the time in seconds, after all pending work on x's device is finished."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter()


def fixed() -> list[Solver]:
    """Returns the solvers of this package that take a grid and draw no noise."""
    return [s for s in SOLVERS.values() if s.fixed]


def play(solver: Solver, ts: Tensor | int, v: Velocity, noise: Tensor) -> Tensor:
    if solver.stochastic:
        solver = solver.with_options(generator=torch.Generator().manual_seed(0))
    return sample(v, noise, ts, solver, nonfinite="return")


def overheads(solvers: list[Solver], rivals: list[Peer]) -> dict[tuple[str, str], float]:
    """Microseconds per step besides the network, by (library, name), on a tiny state with a free
    velocity.

    It is the difference between 32 and 16 steps, so that one-time costs do not count.
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
    """A velocity without cost: x itself."""
    return x


def per_step(walk: Callable[[int], object]) -> float:
    """Returns microseconds, of 32 steps less those of 16."""

    def seconds(n: int) -> float:
        start = time.process_time()  # so that other programs do not count
        walk(n)
        return time.process_time() - start

    walk(16)
    fast, slow = (min(seconds(n) for _ in range(9)) for n in (16, 32))
    return max(0.0, (slow - fast) / 16 * 1e6)


LIBRARIES = ("torch", "diffusers", "torchdiffeq", "flow_matching")


def protocol(noise: Tensor) -> dict:
    """Returns what a reader needs to repeat the measurement."""
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
        "time": "seconds of a single run; overhead: processor time per step, best of 9",
    }


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
