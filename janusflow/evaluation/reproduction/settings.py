"""The settings of a sweep, and how each of them changes a pipeline.

Guidance scale, steps, dtype and precision behind the published scores are not fully stated. Two
faults are known that may have affected others' scores: the published code keeps the ODE's state in
bfloat16, and transformers 5 drops a prompt's spaces or its BOS on some loading paths.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from janusflow.utils.keywords import choice
from samplers.core import Solver, find

BFLOAT16 = torch.bfloat16


def published_euler(v: Callable, x: Tensor, ts: Tensor) -> Iterator[Tensor]:
    """Euler as in the published code: state, step and 1000 t are rounded to bfloat16.

    Thirty steps of the rounded 1/30 add up to 1.0034.
    """
    steps, dtype = len(ts) - 1, x.dtype
    dt = torch.tensor(1 / steps, dtype=BFLOAT16, device=x.device)
    x = x.to(BFLOAT16)
    for t in ts[:-1]:
        clock = (1000 * t).to(BFLOAT16).to(ts.dtype) / 1000
        x = x + dt * v(x.to(dtype), clock).to(BFLOAT16)
        yield x.to(dtype)


STATES: dict[str, Solver] = {
    "float32": find("euler"),
    "bfloat16": Solver(
        name="euler with a bfloat16 state", path=published_euler, order=None, calls=1
    ),
}


TOKENIZERS: dict[str, Callable[[Callable], Callable]] = {
    "own": lambda ids: ids,
    # a Metaspace pre-tokenizer before a ByteLevel model
    "no-spaces": lambda ids: lambda text: ids(text.replace(" ", "")),
    # add_bos_token ignored: guidance keeps the first word instead
    "no-bos": lambda ids: lambda text: ids(text)[1:],
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One way to generate a benchmark's images; the defaults are those of the published example."""

    guidance: float = 2.0
    steps: int = 30
    dtype: str = "bfloat16"
    state: str = "float32"
    tokenizer: str = "own"

    def __post_init__(self):
        for name, known in (("state", STATES), ("tokenizer", TOKENIZERS)):
            choice(f"--{name} is", getattr(self, name), known)
        if not 1 <= self.steps <= 10_000 or not -100 <= self.guidance <= 100:
            raise ValueError(
                f"{self.steps} steps with guidance {self.guidance:g}; expected 1 to 10000 steps "
                "and a weight of at most 100"
            )

    @property
    def name(self) -> str:
        """The name of the folder with its images."""
        parts = [f"w{self.guidance:g}", f"{self.steps}-steps", self.dtype]
        parts += [f"state-{self.state}"] if self.state != "float32" else []
        return "_".join([*parts, *([self.tokenizer] if self.tokenizer != "own" else [])])

    @property
    def evaluations(self) -> int:
        """Network evaluations per image: two per step where guidance acts."""
        return self.steps * (1 if self.guidance == 1 else 2)


def tokenized(pipe, tokenizer: str):
    """Returns the pipeline with prompts tokenized in this way."""
    pipe.processor.ids = TOKENIZERS[tokenizer](pipe.processor.ids)
    return pipe


def sweep(values: dict[str, Sequence], full: bool = False) -> list[Setting]:
    """Returns all first values, then each other value alone; with `full` all combinations."""
    base = Setting(**{name: given[0] for name, given in values.items()})
    if full:
        rows = product(*values.values())
        return [Setting(**dict(zip(values, row, strict=True))) for row in rows]
    others = [(name, value) for name, given in values.items() for value in given[1:]]
    found = [base, *(replace(base, **{name: value}) for name, value in others)]
    return list(dict.fromkeys(found))
