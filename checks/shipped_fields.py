"""Measures solvers on the packaged model: python -m checks.shipped_fields [--pilot] [calls ...]

The fields are those of janusflow/scenes for four prompts, unguided, guided by 2 and 5, and by 4 in
an interval. A reference is rk4 with REFERENCE calls, steps short where the field turns and times
at its jumps, in float32 as the model is; how far half as many calls end from it is printed, and
errors below mean nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec

import torch
from torch import Tensor

from samplers import command_line, guidance_interval, sample, uniform
from samplers.benchmark import suite
from samplers.benchmark.problems import Problem
from samplers.fields import jumps_of, time_shift_of
from samplers.grids import at_jumps, earlier

MODEL = "janusflow/scenes"
PROMPTS = (
    "a red circle left of a blue square",
    "three green stars",
    "a yellow triangle above a pink circle",
    "a large blue heart",
)
GUIDANCE = {"1": 1.0, "2": 2.0, "5": 5.0, "4, interval": guidance_interval(4.0, 0.1, 0.9)}
CALLS = (4, 8, 16)
REFERENCE = 256  # calls of the truth, a multiple of 8


def fields(reference: int = REFERENCE) -> Iterator[Problem]:
    """Yields the fields with their exact ends, states flattened to (B, D)."""
    from janusflow import JanusFlowPipeline

    pipe = JanusFlowPipeline.from_pretrained(MODEL)
    shape = pipe.prepare_latents(1, None, None, torch.Generator().manual_seed(0)).shape[1:]
    for name, rule in GUIDANCE.items():
        yield shipped(name, pipe.field(PROMPTS, rule), shape, reference)


class Flat:
    """A velocity of images as one of vectors: what a suite's problem is."""

    def __init__(self, v, shape: torch.Size):
        self.v, self.shape = v, shape
        self.jumps, self.time_shift = jumps_of(v), time_shift_of(v)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """(B, D) for B a multiple of the prompts; the network reads them four at a time."""
        parts = x.reshape(len(x), *self.shape).split(len(PROMPTS))
        return torch.cat([self.v(part, t) for part in parts]).reshape(x.shape)


def shipped(name: str, v, shape: torch.Size, reference: int) -> Problem:
    """Returns the field under this guidance, its exact end found with so many evaluations."""
    field = Flat(v, shape)

    def end(noise: Tensor, calls: int) -> Tensor:
        ts = earlier(uniform(calls // 4), field.time_shift)
        return sample(field, noise, at_jumps(ts, field.jumps), "rk4")

    def exact(noise: Tensor) -> Tensor:
        fine, coarse = end(noise, reference), end(noise, reference // 2)
        print(f"{name}: the reference is within {suite.error(coarse, fine):.1e}", file=sys.stderr)
        return fine

    size = shape.numel()
    return Problem(name=name, dim=size, velocity=field, start=lambda z: z.float(), exact=exact)


@torch.no_grad()
def page(calls=CALLS, piloted: bool = False, samples: int = 2 * len(PROMPTS)) -> suite.Page:
    """Returns the cells of every field."""
    cells = []
    for problem in fields():
        told = dict(half="shipped model", family=f"guided {problem.name}", field=MODEL)
        found = suite.measured(problem, calls, piloted=piloted, samples=samples)
        cells += [suite.Cell(**told, **seen) for seen in found]
    return suite.Page(cells)


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "calls",
        nargs="*",
        type=int,
        default=list(CALLS),
        help="Measures at these numbers of network evaluations.",
    )
    parser.add_argument("--pilot", action="store_true", help="Adds the grids of pilots.")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if not find_spec("janusflow"):
        sys.exit("janusflow is not installed, so there is no packaged model to measure; install it")
    print(page(asked.calls, asked.pilot))


if __name__ == "__main__":
    main()
