"""Fixed-step solvers of diffusers, torchdiffeq and flow_matching, for the benchmark.

Each runs as shipped (its own grid, defaults and loop; only the time passed to the model is exact)
and on a grid of ours. A number of evaluations buys the most steps within it.
"""

import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from samplers.core import Path, Solver, Velocity
from samplers.grids import uniform


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One method of another library, which can run as shipped or on a given grid."""

    name: str
    library: str
    shipped: Callable[[Velocity, Tensor, int], Tensor]  # (v, noise, steps) -> where it ends
    path: Callable[[Velocity, Tensor, Tensor], Path]  # on a grid of ours, as a solver's
    cost: Callable[[int], int] = int  # steps -> calls, at most
    stochastic: bool = False

    def steps(self, calls: int) -> int:
        """Returns the most steps within `calls` evaluations, 0 if none."""
        return max((n for n in range(1, calls + 1) if self.cost(n) <= calls), default=0)

    def run(self, v: Velocity, noise: Tensor, calls: int) -> Tensor:
        """Returns the final state on the method's own grid, with at most `calls` evaluations."""
        if not (steps := self.steps(calls)):
            raise ValueError(
                f"{self.library} {self.name} takes {self.cost(1)} evaluations a step, and calls is "
                f"{calls}; ask for at least {self.cost(1)}"
            )
        return self.play(steps, None, v, noise)

    def play(self, steps: int, ts: Tensor | None, v: Velocity, noise: Tensor) -> Tensor:
        """Runs so many steps of the method's own grid, or the steps of the grid ts."""
        with quiet():
            if ts is None:
                return self.shipped(v, noise, steps)
            *_, x = self.path(v, noise, ts)
            return x

    @property
    def solver(self) -> Solver:
        """Returns the method as a solver, so that a pilot can optimise its grid."""

        def path(v: Velocity, x: Tensor, ts: Tensor) -> Path:
            with quiet():
                yield from self.path(v, x, ts)

        return Solver(
            name=f"{self.library} {self.name}",
            path=path,
            order=None,
            calls=1,
            extra=lambda steps: self.cost(steps) - steps,
            stochastic=self.stochastic,
        )


@contextmanager
def quiet():
    """A context that silences other libraries' messages and seeds their random numbers with 0."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        yield


def peers() -> dict[str, Peer]:
    """Returns the methods of the installed libraries, by name ("library method")."""
    installed = [build for library, build in LIBRARIES.items() if find_spec(library)]
    return {f"{peer.library} {peer.name}": peer for build in installed for peer in build()}


def uniform_sigmas(steps: int) -> dict:
    """Returns the sigmas that the Flux and Qwen pipelines pass: 1, (N-1)/N, ..., 1/N."""
    return {"sigmas": torch.linspace(1, 1 / steps, steps).tolist()}


def grid_points(steps: int) -> dict:
    """Returns the argument of MiniMax-H3, which counts grid points, one more than steps."""
    return {"num_inference_steps": steps + 1}


FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
THIRD = {"solver_order": 3}
SINGLE = FLOW | {"lower_order_final": True}  # it turns this on by itself, warning each time

# name, class (strings, because which exist depends on the version), its arguments, our facts.
# Left out: Piflow and RFD4-Proteina, whose models do not predict a velocity; Helios' stages, which
# resize the image; UniPC's bh1, which is NaN on every flow.
SCHEDULERS = [
    ("Euler", "FlowMatchEulerDiscreteScheduler", {}, {}),
    ("Euler (Flux sigmas)", "FlowMatchEulerDiscreteScheduler", {}, {"ask": uniform_sigmas}),
    ("Heun", "FlowMatchHeunDiscreteScheduler", {}, {"cost": lambda n: 2 * n - 1}),
    ("FlowMap Euler", "FlowMapEulerDiscreteScheduler", {}, {}),
    ("MiniMax-H3", "MiniMaxH3Scheduler", {}, {"sign": 1, "ask": grid_points}),
    ("Helios", "HeliosScheduler", {"stages": 1, "stage_range": [0, 1]}, {}),
    ("UniPC 2", "UniPCMultistepScheduler", FLOW, {}),
    ("UniPC 3", "UniPCMultistepScheduler", FLOW | THIRD, {}),
    ("DPM++ 2M", "DPMSolverMultistepScheduler", FLOW, {}),
    ("DPM++ 2M Heun", "DPMSolverMultistepScheduler", FLOW | {"solver_type": "heun"}, {}),
    ("DPM++ 3M", "DPMSolverMultistepScheduler", FLOW | THIRD, {}),
    ("DPM++ 2S", "DPMSolverSinglestepScheduler", SINGLE, {}),
    ("DPM++ 3S", "DPMSolverSinglestepScheduler", SINGLE | THIRD, {}),
    ("DEIS 2", "DEISMultistepScheduler", FLOW, {}),
    ("DEIS 3", "DEISMultistepScheduler", FLOW | THIRD, {}),
    ("SA-Solver", "SASolverScheduler", FLOW, {"stochastic": True}),
    ("SA-Solver, tau 0", "SASolverScheduler", FLOW | {"tau_func": lambda _: 0}, {}),
    ("LCM", "FlowMatchLCMScheduler", {}, {"stochastic": True}),
    ("LTX ancestral", "LTXEulerAncestralRFScheduler", {}, {"stochastic": True}),
]


def diffusers_peers() -> list[Peer]:
    """Returns the flow schedulers of the installed diffusers that accept a plain velocity."""
    import diffusers

    return [
        scheduler_peer(name, getattr(diffusers, kind)(**arguments), **facts)
        for name, kind, arguments, facts in SCHEDULERS
        if hasattr(diffusers, kind)
    ]


def scheduler_peer(name: str, scheduler, *, sign: int = -1, ask=None, **facts) -> Peer:
    """Returns a peer for a scheduler; ask(steps) returns the arguments of its `set_timesteps`."""
    from samplers import diffusers as diffusers_bridge

    ask = ask or (lambda steps: {"num_inference_steps": steps})

    def shipped(v, noise, steps):
        return diffusers_bridge.as_shipped(scheduler, v, noise, sign=sign, **ask(steps))

    def path(v, noise, ts):
        return diffusers_bridge.placed(scheduler, v, noise, ts, sign=sign)

    return Peer(name=name, library="diffusers", shipped=shipped, path=path, **facts)


# steps -> calls; both Adams start with two Runge-Kutta steps, the implicit one then corrects up to
# four times a step, so its cost is a bound
METHODS = {
    "euler": lambda n: n,
    "midpoint": lambda n: 2 * n,
    "heun2": lambda n: 2 * n,
    "heun3": lambda n: 3 * n,
    "rk4": lambda n: 4 * n,
    "explicit_adams": lambda n: n + 3 * min(n, 2),
    "implicit_adams": lambda n: 4 * min(n, 2) + 5 * max(n - 2, 0),
}


def torchdiffeq_peers() -> list[Peer]:
    """Returns every fixed-step method of torchdiffeq; its own grid is uniform."""
    from torchdiffeq import odeint

    def peer(method, cost):
        def path(v, noise, ts):
            return iter(odeint(lambda t, x: v(x, t), noise, ts, method=method)[1:])

        return grid_peer("torchdiffeq", method, path, cost)

    return [peer(method, cost) for method, cost in METHODS.items()]


def flow_matching_peers() -> list[Peer]:
    """Returns facebookresearch/flow_matching's ODESolver, whose default is a single Euler step."""
    from flow_matching.solver import ODESolver

    def peer(method):
        def path(v, noise, ts):
            solver = ODESolver(lambda x, t: v(x, t))
            grid = {"step_size": None, "time_grid": ts, "return_intermediates": True}
            return iter(solver.sample(noise, method=method, **grid)[1:])

        return grid_peer("flow_matching", method, path, METHODS[method])

    return [peer(method) for method in ("euler", "midpoint", "heun3", "rk4")]


def grid_peer(library: str, method: str, path, cost) -> Peer:
    """Returns a peer that accepts any grid; its own grid has equal steps."""

    def shipped(v, noise, steps):
        *_, x = path(v, noise, uniform(steps))
        return x

    return Peer(name=method, library=library, shipped=shipped, path=path, cost=cost)


LIBRARIES = {
    "diffusers": diffusers_peers,
    "torchdiffeq": torchdiffeq_peers,
    "flow_matching": flow_matching_peers,
}
