"""Compares `auto` with the best other method on fields that nothing was fitted to.

    python -m checks.heldout 8 16

The table shows the mean ratio of their errors by number of evaluations, for the solver's own grid
and for the grid of a pilot with eight samples, beside the bounds that the tests demand. The other
methods are diffusers' flow schedulers and torchdiffeq's fixed-step methods that spend exactly so
many evaluations.
"""

from functools import cache, partial

import torch

from samplers import PROBLEMS, command_line, pilot, sample
from samplers.benchmark.peers import peers

# calls: at most, on the own grid and on the pilot's
BOUNDS = {
    4: (0.75, 0.6),
    6: (0.9, 0.65),
    8: (0.65, 0.45),
    10: (0.6, 0.42),
    16: (0.55, 0.4),
    20: (0.5, 0.38),
    32: (0.4, 0.3),
    64: (0.3, 0.28),
}

FIELDS = {
    name: partial(PROBLEMS[kind], **options)
    for name, kind, options in [
        ("mixture 2", "mixture", {"dim": 2, "modes": 12, "seed": 102, "spread": 0.15}),
        ("mixture 10", "mixture", {"dim": 10, "modes": 30, "seed": 104}),
        ("mixture 64", "mixture", {"dim": 64, "modes": 50, "seed": 106, "spread": 0.15}),
        ("guided 4", "guided", {"dim": 4, "modes": 12, "seed": 107}),
        ("guided 32", "guided", {"dim": 32, "modes": 24, "seed": 108, "weight": 2.5}),
        ("gaussian 32", "gaussian", {"dim": 32, "seed": 101, "low": 0.05, "high": 1.5}),
        ("mixture 3", "mixture", {"dim": 3, "modes": 6, "seed": 103, "spread": 0.25}),
        ("mixture 24", "mixture", {"dim": 24, "modes": 10, "seed": 105, "spread": 0.35}),
        ("guided 64", "guided", {"dim": 64, "seed": 109, "spread": 0.15, "weight": 1.5}),
        ("digits", "digits", {"spread": 0.2}),
    ]
}


def error(x, reference):
    """Returns the geometric mean over samples of the RMS error."""
    return float(((x - reference).square().mean(1).log().mean() / 2).exp())


@cache
def field(make, samples):
    problem = make()
    noise = problem.noise(samples, seed=12)
    return problem, noise, problem.solution(noise)


@cache
def best_peer(make, calls, samples):
    """Returns the smallest error of all peers that spend so many evaluations."""
    problem, noise, end = field(make, samples)
    fit = [p for p in peers().values() if not p.stochastic and p.name[-14:] != "implicit_adams"]
    able = [p for p in fit if p.steps(calls) and p.cost(p.steps(calls)) == calls]
    errors = [error(p.run(problem.velocity, noise, calls), end) for p in able]
    return min(e for e in errors if e == e)


def measure(make, calls, samples=128):
    """Returns {"own": ratio, "pilot": ratio} on one field."""
    problem, noise, end = field(make, samples)
    placed = pilot(problem.velocity, problem.noise(8, seed=62), calls)
    best = best_peer(make, calls, samples)
    return {
        name: error(sample(problem.velocity, noise, ts, "auto"), end) / best
        for name, ts in (("own", calls), ("pilot", placed))
    }


def main(calls):
    print(f"{'calls':>5} {'own':>7} {'asked':>6} {'pilot':>7} {'asked':>6}   worst field")
    for n in calls:
        ratios = {name: measure(make, n) for name, make in FIELDS.items()}
        own, placed = (sum(r[k] for r in ratios.values()) / len(ratios) for k in ("own", "pilot"))
        worst = max(ratios, key=lambda name: ratios[name]["own"])
        asked = BOUNDS[n]
        print(
            f"{n:5} {own:7.3f} {asked[0]:6} {placed:7.3f} {asked[1]:6}   "
            f"{worst} {ratios[worst]['own']:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = command_line.parser(__doc__)
    parser.add_argument("calls", type=int, nargs="*", help="Measures these numbers of evaluations.")
    main(parser.parse_args().calls or BOUNDS)
