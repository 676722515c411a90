"""Learns the times and the weights of a solver for one field, for 4 to 10 evaluations.

    python -m samplers.search.learn --field mixture:dim=64 --calls 6 --out mixture64-6.json

Training starts from the registered solver that is best on the field at this number of evaluations,
written as a linear multistep rule (`samplers.linear`). All its times and weights then follow the
gradient of the mean log error against an accurate reference. Non-stationary solvers: Shaul et al.
2024 (BNS, arXiv 2403.01329); S4S, arXiv 2502.17423.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from samplers import command_line
from samplers.benchmark.equal_calls import problem, run
from samplers.benchmark.measure import fixed, installed
from samplers.benchmark.summary import OURS, best_shipped
from samplers.comparison import endpoints
from samplers.core import Solver, Velocity, find, sample, times
from samplers.solvers.linear_multistep import Learned, assemble, linearize, walk


def differentiable(row: Tensor, known: list[Tensor]) -> Tensor:
    stacked = torch.stack(known)
    return torch.tensordot(row[: len(known)].to(stacked), stacked, 1)


def starts(calls: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yields (name, nodes, weights) of every registered solver that spends so many evaluations."""
    for solver in fixed():
        try:
            nodes, weights = linearize(solver, times(calls, solver))
        except ValueError:
            continue
        if weights.isfinite().all() and nodes[0] == 0:
            yield solver.name, nodes, weights


class TrainableRule(torch.nn.Module):
    """The trainable numbers: logarithms of the gaps between evaluations, and weights.

    Gaps are positive and add up to 1, so the times stay in order and inside [0, 1].
    """

    def __init__(self, nodes: Tensor, weights: Tensor):
        super().__init__()
        gaps = nodes.diff().clamp(min=1e-3)  # stages that share a time come apart a little
        self.gaps = torch.nn.Parameter((gaps / gaps.sum()).log())
        self.weights = torch.nn.Parameter(weights[1:].clone())

    def nodes(self) -> Tensor:
        return grid_of(self.gaps)

    def forward(self, v: Velocity, x: Tensor) -> Tensor:
        ts = self.nodes()[:-1]
        *_, x = walk(v, x, ts.to("cpu").unbind(), self.weights, differentiable)
        return x


def log_error(x: Tensor, reference: Tensor) -> Tensor:
    """Returns log e, the benchmark's error: half the mean logarithm of the squared errors."""
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
    """Learns a rule of so many evaluations from noise, (B, ...), some hundreds of samples.

    v must be differentiable in x; if it is not in t, the times stay fixed. One iteration takes
    `calls` evaluations of v on `batch` samples, forward and backward; save_memory evaluates each
    forward pass once more instead of keeping its activations.

    Args:
        reference: the endpoints of the noise, or a tolerance to compute them with (dopri8).
        rate: the learning rate of the logarithms of the gaps; a quarter of it for the weights. It
            rises during a tenth of the iterations, then falls to zero along a cosine.
        progress: called with (iteration, e on the batch).

    Raises ValueError if v has no gradient in x, or if no registered solver can spend `calls`.
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
    if not v(x, torch.tensor(0.5, dtype=torch.float64, device="cpu")).requires_grad:
        raise ValueError(
            "v(x, t) carries no gradient in x, which learning needs; take torch.no_grad() or "
            "inference_mode out of v, or fit the times alone with fit_grid"
        )


def frozen(rule: TrainableRule) -> tuple[Tensor, Tensor]:
    """Returns (nodes, weights) of a trained rule; the first row of weights is the noise's."""
    below = rule.weights.detach().tril(1)
    first = torch.zeros_like(below[:1])
    first[0, 0] = 1
    return rule.nodes().detach(), torch.cat([first, below])


def best_start(
    v: Velocity, noise: Tensor, reference: Tensor, calls: int
) -> tuple[str, TrainableRule, float]:
    """Returns the solver with the smallest e on this field, as (name, rule, e)."""
    found = []
    for name, nodes, weights in starts(calls):
        rule = TrainableRule(nodes, weights)
        e = float(log_error(rule(v, noise), reference).exp())
        if math.isfinite(e):
            found.append((e, name, rule))
    if not found:
        raise ValueError(f"no solver can use {calls} evaluations; choose 2 or more")
    e, name, rule = min(found, key=lambda start: start[0])
    return name, rule, e


def train(
    rule: TrainableRule,
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
    """The learning rate's fraction after this fraction of iterations: linear rise, cosine fall."""
    if done < warm:
        return done / warm
    return (1 + math.cos(math.pi * (done - warm) / (1 - warm))) / 2


class Whitened:
    """Adam with the full matrix E[g g^T] in place of its diagonal (full-matrix Adagrad, Duchi et
    al. 2011).

    The few dozen numbers of a rule are strongly correlated, since one weight can be traded for its
    neighbour, and per-number steps are slow along such valleys. Compared with Adam at equal
    iterations, the error falls to a half or a third.
    """

    def __init__(self, parameters: list[Tensor], scales: list[float]):
        self.parameters = parameters
        pairs = zip(parameters, scales, strict=True)
        self.scale = torch.cat([torch.full_like(p.detach().flatten(), s) for p, s in pairs])
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
    """Returns a random batch, or everything in order if it fits (so v may tell its samples)."""
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
    """Fits only the times of a solver to the field; returns (steps + 1,) from 0 to 1.

    It follows gradients of the mean log error in the logarithms of the steps, by forward
    differences of size `nudge`. v needs no gradient, and one iteration takes (steps + 1) * calls
    evaluations of it. Returns the best grid found, including the solver's own.
    """
    solver = find(solver)
    own = times(calls, solver)
    with torch.no_grad():
        if not isinstance(reference, Tensor):
            reference = endpoints(v, noise, reference)

        def loss(gaps: Tensor) -> Tensor:
            x = sample(v, noise, grid_of(gaps), solver, nonfinite="return")
            return log_error(x, reference).cpu().double()

        gaps = own.diff().log().requires_grad_()
        adam = torch.optim.Adam([gaps], lr=rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, iterations)
        best, grid = loss(gaps), own
        for _ in range(iterations):
            here = loss(gaps)
            if here < best:
                best, grid = here, grid_of(gaps.detach())
            shifts = nudge * torch.eye(len(gaps), dtype=gaps.dtype, device=gaps.device)
            gaps.grad = torch.stack([loss(gaps + shift) - here for shift in shifts]) / nudge
            adam.step()
            schedule.step()
    return grid


def grid_of(gaps: Tensor) -> Tensor:
    """Returns times from logarithms of steps, with exactly 0 and 1 at the ends."""
    inner = gaps.softmax(0).cumsum(0)[:-1]
    return torch.cat([inner.new_zeros(1), inner, inner.new_ones(1)])


def parser() -> argparse.ArgumentParser:
    p = command_line.parser(__doc__, prog="python -m samplers.search.learn")
    p.add_argument(
        "--field",
        default="mixture:dim=64",
        help="Learns for this field of samplers.PROBLEMS, such as bend or mixture:dim=64,seed=3.",
    )
    p.add_argument("--calls", type=int, default=6, help="Sets the number of evaluations.")
    p.add_argument(
        "--out", metavar="FILE", required=True, help="Writes the learned solver to this JSON file."
    )
    p.add_argument("--samples", type=int, default=1024, help="Learns from this many samples.")
    p.add_argument("--iterations", type=int, default=600, help="Optimises for this many steps.")
    p.add_argument("--seed", type=int, default=1, help="Seeds the noise to learn from.")
    return p


def main(arguments: list[str] | None = None) -> Learned:
    """Learns a rule, saves it, and evaluates it on noise that was not used for learning."""
    args = parser().parse_args(arguments)
    try:
        field = problem(args.field)
        solver = fit(
            field.velocity,
            field.noise(args.samples, seed=args.seed),
            args.calls,
            iterations=args.iterations,
            name=args.field,
            progress=lambda i, e: i % 100 or print(f"{i:>5}  e = {e:.3e}", flush=True),
        )
    except ValueError as error:
        raise SystemExit(f"samplers.learn: {error}") from error
    solver.save(args.out)
    noise = field.noise(512, seed=args.seed + 1)
    report = run(
        field.velocity,
        noise,
        calls=[args.calls],
        solvers=[solver],
        reference=field.solution(noise),
        pilot=False,
        overhead=False,
    )
    e = next(row.e for row in report.rows if row.library == OURS)
    peer = best_shipped(report.rows, args.calls)
    print(f"other noise: e = {e:.3e}, best peer as shipped {peer:.3e}, ratio {e / peer:.3f}")
    print(f"{args.out}: learned in {solver.protocol['seconds']} s")
    return solver


if __name__ == "__main__":
    main()
