"""Linear multistep rules as data: run them, extract them from a solver, save and load them.

A rule of N evaluations has times t_0 = 0 < ... < t_{N-1} < 1 and a triangle of weights,

    x_i = a_i noise + sum over j < i of w_ij v(x_j, t_j),    i = 0 ... N,    x_0 = noise,

where x_i is the state of evaluation i and x_N the result. Every solver here with fixed steps is
one; `samplers.learn` trains them.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path as File

import torch
from torch import Tensor

from samplers.safe_json import read_json
from samplers.solver_registry import Path, Solver, Velocity, advance

FORMAT = "samplers.learned.1"
LARGEST = 64  # calls that a file may ask for
FAR = 1e300  # a whole number of JSON may be beyond float64


@dataclass(frozen=True, kw_only=True)
class Learned(Solver):
    """A linear multistep rule as a solver; `save` stores it, `learned` loads it."""

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
        """Writes the rule as a JSON file of some kilobytes."""
        numbers = {
            "times": self.nodes[:-1].tolist(),
            "weights": [row[: i + 1].tolist() for i, row in enumerate(self.weights)],
        }
        content = {"format": FORMAT, "name": self.name, **numbers}
        content |= {"fingerprint": fingerprint(numbers), "protocol": self.protocol}
        File(path).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def fingerprint(numbers: dict) -> str:
    """Returns a hash of all digits of the times and weights."""
    return hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()[:16]


def assemble(name: str, nodes: Tensor, weights: Tensor, protocol: dict) -> Learned:
    """Returns the rule as a solver that runs only on its own grid, `nodes`."""
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
    """Yields the states x_1 ... x_N; mix(row, known) combines noise and velocities so far."""
    known = [x]
    for t, row in zip(ts, rows, strict=True):
        known.append(v(x, t))
        x = mix(row, known)
        yield x


def combine(row: list[float], known: list[Tensor]) -> Tensor:
    first, *rest = zip(row, known, strict=False)
    return advance(first[0] * first[1], *rest)


def linearize(solver: Solver, ts: Tensor, time_shift: float = 1.0) -> tuple[Tensor, Tensor]:
    """Returns (nodes, weights) of a solver on a grid, found by running it on basis vectors.

    The field has this `time_shift`.

    The noise is the first unit vector and the result of evaluation j the next one after it, so the
    components of every state are its weights. For a solver with `lean` it is the linear part.
    """
    n, solver = solver.cost(len(ts) - 1), solver.linear
    units = torch.eye(n + 1, dtype=torch.float64, device="cpu")
    nodes, states = [], []

    def v(x: Tensor, t: Tensor) -> Tensor:
        nodes.append(float(t))
        states.append(x)
        return units[len(nodes)][None]

    v.time_shift = time_shift
    *_, end = solver.path(v, units[:1], ts)
    return torch.tensor([*nodes, 1.0], dtype=torch.float64, device="cpu"), torch.cat([*states, end])


def learned(path: str | File) -> Learned:
    """Loads a rule from a JSON file, or by the name of one that this package contains.

    The file is checked completely. Raises ValueError that says what is wrong with it.
    """
    place = File(path)
    if not place.is_file():
        place = File(__file__).parent / f"{path}.json"
    if not place.is_file():
        known = sorted(f.stem for f in File(__file__).parent.glob("*.json"))
        raise ValueError(
            f"no file {str(path)!r}, nor a learned solver of that name; there are {known}"
        )
    return assemble(*checked(read_json(place), str(place)))


def checked(content: object, place: str) -> tuple[str, Tensor, Tensor, dict]:
    """Returns a file's (name, nodes, weights, protocol). Raises ValueError if invalid."""

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
    weights = torch.zeros(len(rows), len(rows), dtype=torch.float64, device="cpu")
    for i, row in enumerate(rows):
        weights[i, : i + 1] = torch.tensor(row, dtype=torch.float64, device="cpu")
    return name, torch.tensor([*nodes, 1.0], dtype=torch.float64, device="cpu"), weights, protocol


def numeric(items: object) -> bool:
    """Returns whether this is a list of finite numbers (JSON's NaN and true are not)."""
    return isinstance(items, list) and all(
        isinstance(x, int | float) and not isinstance(x, bool) and abs(x) <= FAR for x in items
    )
