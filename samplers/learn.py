"""A solver learned for one field: free times, free weights, 4 to 10 calls.

A linear multistep rule calls v at times t_0 = 0 < ... < t_{N-1} < 1 and

    x_i = a_i noise + sum over j < i of w_ij v(x_j, t_j),    i = 0 ... N,    x_0 = noise,

is the state of call i, x_N the result. Every solver here with fixed steps is such a rule, so the
best of them on the field is where training starts; then all t, a and w follow the gradient of the
mean log error against a fine reference. Non-stationary solvers: Shaul et al. 2024 (BNS,
arXiv 2403.01329); S4S, arXiv 2502.17423.

    python -m samplers.learn --field mixture64 --calls 6 --out mixture64-6.json
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path as File

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .benchmark import endpoints, fixed, installed
from .core import Path, Solver, Velocity, advance, find, sample, times

LARGEST = 64  # calls that a file may ask for


@dataclass(frozen=True, kw_only=True)
class Learned(Solver):
    """A linear multistep rule as a solver; `save` it, `learned` loads it."""

    weights: Tensor  # (N + 1, N + 1) lower triangular; row i: a_i, w_i0, ..., w_i,i-1
    nodes: Tensor  # (N + 1,): the times of the calls, then 1
    protocol: dict

    def steps(self, calls: int) -> int:
        if calls != len(self.nodes) - 1:
            raise ValueError(
                f"{self.name} was learned for {len(self.nodes) - 1} calls, not {calls}; learn one "
                f"for {calls} or ask for {len(self.nodes) - 1}"
            )
        return calls

    def save(self, path: str | File) -> None:
        """Writes the rule as JSON, some kilobytes."""
        numbers = {
            "times": self.nodes[:-1].tolist(),
            "weights": [row[: i + 1].tolist() for i, row in enumerate(self.weights)],
        }
        content = {"format": FORMAT, "name": self.name, **numbers}
        content |= {"fingerprint": fingerprint(numbers), "protocol": self.protocol}
        File(path).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


FORMAT = "samplers.learned.1"


def fingerprint(numbers: dict) -> str:
    """Changes with any digit of the times and weights."""
    return hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()[:16]


def assemble(name: str, nodes: Tensor, weights: Tensor, protocol: dict) -> Learned:
    """The rule as a solver that runs on its own grid, nodes, and no other."""
    rows = weights[1:].tolist()

    def path(v: Velocity, x: Tensor, ts: Tensor) -> Path:
        if len(ts) != len(nodes) or not torch.allclose(ts, nodes, rtol=0, atol=1e-9):
            raise ValueError(
                f"{name} learned its own times; pass the number of calls, {len(nodes) - 1}, "
                "in place of a grid"
            )
        return walk(v, x, ts[:-1].unbind(), rows, combine)

    return Learned(
        name=name,
        path=path,
        order=None,
        calls=1,
        grid=lambda _: nodes,
        doc=f"Linear multistep rule learned for {len(nodes) - 1} calls.",
        weights=weights,
        nodes=nodes,
        protocol=protocol,
    )


def walk(v: Velocity, x: Tensor, ts: Iterable[Tensor], rows: Iterable, mix: Callable) -> Path:
    """The states x_1 ... x_N; mix(row, known) weighs the noise and the velocities so far."""
    known = [x]
    for t, row in zip(ts, rows, strict=True):
        known.append(v(x, t))
        x = mix(row, known)
        yield x


def combine(row: list[float], known: list[Tensor]) -> Tensor:
    first, *rest = zip(row, known, strict=False)
    return advance(first[0] * first[1], *rest)


def differentiable(row: Tensor, known: list[Tensor]) -> Tensor:
    stacked = torch.stack(known)
    return torch.tensordot(row[: len(known)].to(stacked), stacked, 1)


def linearize(solver: Solver, ts: Tensor) -> tuple[Tensor, Tensor]:
    """(nodes, weights) of a solver on a grid, read off by running it on basis vectors.

    The noise is the first unit vector, the result of call j the one after it, so that every state
    the solver forms spells its own weights.
    """
    n = solver.cost(len(ts) - 1)
    units = torch.eye(n + 1, dtype=torch.float64)
    nodes, states = [], []

    def v(x: Tensor, t: Tensor) -> Tensor:
        nodes.append(float(t))
        states.append(x)
        return units[len(nodes)][None]

    *_, end = solver.path(v, units[:1], ts)
    return torch.tensor([*nodes, 1.0], dtype=torch.float64), torch.cat([*states, end])


def starts(calls: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(name, nodes, weights) of every solver here that can spend so many calls."""
    for solver in fixed():
        try:
            nodes, weights = linearize(solver, times(calls, solver))
        except ValueError:
            continue
        if weights.isfinite().all() and nodes[0] == 0:
            yield solver.name, nodes, weights


class Rule(torch.nn.Module):
    """The free numbers: logarithms of the gaps between calls, and weights.

    Gaps stay positive and add up to 1, so the times stay in order and inside [0, 1].
    """

    def __init__(self, nodes: Tensor, weights: Tensor):
        super().__init__()
        gaps = nodes.diff().clamp(min=1e-3)  # stages that share a time come apart a little
        self.gaps = torch.nn.Parameter((gaps / gaps.sum()).log())
        self.weights = torch.nn.Parameter(weights[1:].clone())

    def nodes(self) -> Tensor:
        inner = self.gaps.softmax(0).cumsum(0)[:-1]
        return torch.cat([inner.new_zeros(1), inner, inner.new_ones(1)])

    def forward(self, v: Velocity, x: Tensor) -> Tensor:
        ts = self.nodes()[:-1]
        *_, x = walk(v, x, ts.to("cpu").unbind(), self.weights, differentiable)
        return x


def log_error(x: Tensor, reference: Tensor) -> Tensor:
    """log e, whose exponential the benchmark reports: half the mean log of the squared errors."""
    square = (x - reference).square().flatten(1).mean(1)
    return (square + torch.finfo(x.dtype).eps ** 2).log().mean() / 2


def fit(
    v: Velocity,
    noise: Tensor,
    calls: int,
    *,
    reference: Tensor | float = 1e-6,
    iterations: int = 600,
    batch: int = 256,
    rate: float = 0.03,
    seed: int = 0,
    name: str = "learned",
    save_memory: bool = False,
    progress: Callable[[int, float], None] | None = None,
) -> Learned:
    """Learns a rule of so many calls from noise, (B, ...), some hundreds of samples.

    v must be differentiable in x; where it is not in t, the times stay where they start. One
    iteration costs `calls` evaluations of v on `batch` samples, forward and backward; save_memory
    evaluates each forward once more instead of keeping its activations.

    Args:
        reference: the endpoints of the noise, or a tolerance to find them with (dopri8).
        rate: of the logarithms of the gaps, a quarter of it for the weights; it rises for a tenth
            of the iterations, then falls to nothing along a cosine.
        progress: called with (iteration, e on the batch).

    Raises ValueError if v has no gradient in x, or if no solver here can spend `calls`.
    """
    begun = time.perf_counter()
    demand_gradient(v, noise[:batch])
    with torch.no_grad():
        if not isinstance(reference, Tensor):
            reference = endpoints(v, noise, reference)
        start, rule, before = best_start(v, noise, reference, calls)
    field = partial(checkpoint, v, use_reentrant=False) if save_memory else v
    train(rule, field, noise, reference, iterations, batch, rate, seed, progress)
    with torch.no_grad():
        after = float(log_error(rule(v, noise), reference).exp())
        if not after < before:
            _, rule, after = best_start(v, noise, reference, calls)
    facts = {
        "start": start,
        "e_start": before,
        "e_trained": after,
        "samples": len(noise),
        "shape": list(noise.shape[1:]),
        "dtype": str(noise.dtype).removeprefix("torch."),
        "iterations": iterations,
        "batch": batch,
        "rate": rate,
        "seed": seed,
        "seconds": round(time.perf_counter() - begun, 1),
        "torch": installed("torch"),
    }
    return assemble(name, *frozen(rule), facts)


def demand_gradient(v: Velocity, noise: Tensor) -> None:
    x = noise.detach().requires_grad_()
    if not v(x, torch.tensor(0.5, dtype=torch.float64)).requires_grad:
        raise ValueError(
            "v(x, t) carries no gradient in x, which learning needs; take torch.no_grad() or "
            "inference_mode out of v, or fit the times alone with fit_grid"
        )


def frozen(rule: Rule) -> tuple[Tensor, Tensor]:
    """(nodes, weights) of a trained rule, the weights with the noise's own row on top."""
    below = rule.weights.detach().tril(1)
    first = torch.zeros_like(below[:1])
    first[0, 0] = 1
    return rule.nodes().detach(), torch.cat([first, below])


def best_start(
    v: Velocity, noise: Tensor, reference: Tensor, calls: int
) -> tuple[str, Rule, float]:
    """The solver with the smallest e on this field, as (name, rule, e)."""
    found = []
    for name, nodes, weights in starts(calls):
        rule = Rule(nodes, weights)
        e = float(log_error(rule(v, noise), reference).exp())
        if math.isfinite(e):
            found.append((e, name, rule))
    if not found:
        raise ValueError(f"no solver here can spend {calls} calls; choose 2 or more")
    e, name, rule = min(found, key=lambda start: start[0])
    return name, rule, e


def train(
    rule: Rule,
    v: Velocity,
    noise: Tensor,
    reference: Tensor,
    iterations: int,
    batch: int,
    rate: float,
    seed: int,
    progress: Callable[[int, float], None] | None = None,
) -> None:
    """Minimises the mean log error of random batches."""
    generator = torch.Generator().manual_seed(seed)
    descent = Whitened(list(rule.parameters()), [1.0, 0.25])
    for i in range(iterations):
        chosen = pick(len(noise), batch, generator)
        loss = log_error(rule(v, noise[chosen]), reference[chosen])
        gradients = torch.autograd.grad(loss, descent.parameters, materialize_grads=True)
        descent.step(rate * ramp(i / iterations), gradients)
        if progress:
            progress(i, float(loss.detach().exp()))


def ramp(done: float, warm: float = 0.1) -> float:
    """The share of the rate after this share of the iterations: up in a line, down in a cosine."""
    if done < warm:
        return done / warm
    return (1 + math.cos(math.pi * (done - warm) / (1 - warm))) / 2


class Whitened:
    """Adam with the whole matrix E[g g^T] in place of its diagonal (full-matrix Adagrad's idea,
    Duchi et al. 2011, with Adam's averages).

    The tens of numbers of a rule pull against each other, since a weight may be traded for its
    neighbour; per-number steps crawl along such valleys. Against Adam with the same iterations, e
    falls to a half or a third.
    """

    def __init__(self, parameters: list[Tensor], scales: list[float]):
        self.parameters = parameters
        pairs = zip(parameters, scales, strict=True)
        self.scale = torch.cat([torch.full((p.numel(),), s, dtype=p.dtype) for p, s in pairs])
        self.mean = torch.zeros_like(self.scale)
        self.square = torch.outer(self.mean, self.mean)
        self.count = 0

    @torch.no_grad()
    def step(self, rate: float, gradients: tuple[Tensor, ...]) -> None:
        g = torch.cat([g.flatten() for g in gradients]) * self.scale
        g = g / g.norm().clamp(min=1)
        self.count += 1
        self.mean.lerp_(g, 0.1)
        self.square.lerp_(torch.outer(g, g), 0.01)
        sizes, axes = torch.linalg.eigh(self.square / (1 - 0.99**self.count))
        roots = sizes.clamp(min=0).sqrt()
        along = axes.T @ self.mean / (1 - 0.9**self.count)
        move = axes @ (along / (roots + 1e-4 * roots.max() + 1e-12)) * self.scale
        parts = move.split([p.numel() for p in self.parameters])
        for p, part in zip(self.parameters, parts, strict=True):
            p -= rate * part.view_as(p)


def pick(samples: int, batch: int, generator: torch.Generator) -> Tensor | slice:
    """A random batch; everything, in order, if it fits (v may then know its samples apart)."""
    return slice(None) if batch >= samples else torch.randperm(samples, generator=generator)[:batch]


def fit_grid(
    v: Velocity,
    noise: Tensor,
    calls: int,
    solver: str | Solver = "auto",
    *,
    reference: Tensor | float = 1e-6,
    iterations: int = 60,
    rate: float = 0.1,
    nudge: float = 1e-3,
) -> Tensor:
    """A grid for a solver, its times alone fitted to the field: (steps + 1,) from 0 to 1.

    Gradients of the mean log error in the logarithms of the steps, by forward differences of size
    `nudge`: v needs no gradient, and one iteration costs (steps + 1) * calls evaluations of it.
    Returns the best grid met, the solver's own included.
    """
    solver = find(solver)
    own = times(calls, solver)
    with torch.no_grad():
        if not isinstance(reference, Tensor):
            reference = endpoints(v, noise, reference)

        def loss(gaps: Tensor) -> Tensor:
            x = sample(v, noise, grid_of(gaps), solver, nonfinite="return")
            return log_error(x, reference).double().cpu()

        gaps = own.diff().log().requires_grad_()
        adam = torch.optim.Adam([gaps], lr=rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, iterations)
        best, grid = loss(gaps), own
        for _ in range(iterations):
            here = loss(gaps)
            if here < best:
                best, grid = here, grid_of(gaps.detach())
            shifts = nudge * torch.eye(len(gaps), dtype=gaps.dtype)
            gaps.grad = torch.stack([loss(gaps + shift) - here for shift in shifts]) / nudge
            adam.step()
            schedule.step()
    return grid


def grid_of(gaps: Tensor) -> Tensor:
    """Times from logarithms of steps, exactly 0 and 1 at the ends."""
    ts = gaps.detach().softmax(0).cumsum(0)
    return torch.cat([ts.new_zeros(1), ts[:-1], ts.new_ones(1)])


def learned(path: str | File) -> Learned:
    """Loads a rule from a JSON file, or by the name of one that comes with this package.

    Nothing in the file is trusted: ValueError says what is wrong with it.
    """
    place = File(path)
    if not place.is_file():
        place = File(__file__).with_name(f"{path}.json")
    if not place.is_file():
        known = sorted(f.stem for f in File(__file__).parent.glob("*.json"))
        raise ValueError(
            f"no file {str(path)!r} and no learned solver of that name; known: {known}"
        )
    try:
        content = json.loads(place.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{place} is not JSON: {error}") from error
    return assemble(*checked(content, str(place)))


def checked(content: object, place: str) -> tuple[str, Tensor, Tensor, dict]:
    """(name, nodes, weights, protocol) of a file's content, or ValueError."""

    def demand(fine: bool, wanted: str) -> None:
        if not fine:
            raise ValueError(f"{place} is not a learned solver: {wanted}; learn or copy it again")

    demand(isinstance(content, dict) and content.get("format") == FORMAT, f"format is not {FORMAT}")
    name, protocol = content.get("name"), content.get("protocol")
    demand(isinstance(name, str) and isinstance(protocol, dict), "name or protocol is missing")
    nodes, rows = content.get("times"), content.get("weights")
    demand(numeric(nodes) and 1 <= len(nodes) <= LARGEST, f"times are not 1 to {LARGEST} numbers")
    rising = all(a < b for a, b in pairwise([*nodes, 1.0]))
    demand(nodes[0] == 0 and rising, "times do not rise from 0 to below 1")
    demand(isinstance(rows, list) and len(rows) == len(nodes) + 1, "weights are not N + 1 rows")
    shaped = all(numeric(row) and len(row) == i + 1 for i, row in enumerate(rows))
    demand(shaped, "weights are not a triangle of finite numbers")
    numbers = {"times": nodes, "weights": rows}
    demand(content.get("fingerprint") == fingerprint(numbers), "fingerprint and numbers differ")
    weights = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for i, row in enumerate(rows):
        weights[i, : i + 1] = torch.tensor(row, dtype=torch.float64)
    return name, torch.tensor([*nodes, 1.0], dtype=torch.float64), weights, protocol


def numeric(items: object) -> bool:
    """Whether this is a list of finite numbers (JSON's NaN and true are none)."""
    return isinstance(items, list) and all(
        isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in items
    )
