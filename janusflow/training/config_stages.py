"""Training stages as data: the paper's three, and which parts of the model each of them trains.

Ma et al. 2024, arXiv 2411.07975, table 1; Esser et al. 2024, arXiv 2403.03206, for the density of
times.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from janusflow.data.samples import KINDS
from janusflow.training.losses import WEIGHTS
from janusflow.training.optimizers import OPTIMIZERS
from janusflow.training.schedules import SCHEDULES
from janusflow.training.timestep_sampling import DENSITIES, options_of
from janusflow.utils import limits
from janusflow.utils.keywords import choice

# Parts of the model by the beginnings of their parameters' names.
PARTS = {
    "vision_encoder": ("vision_und_enc_model.",),
    "linear": (
        "vision_und_enc_aligner.",
        "beg_of_und_embed",
        "vision_gen_enc_aligner.",
        "vision_gen_dec_aligner",  # and its norm
    ),
    "generation": ("vision_gen_enc_model.", "vision_gen_dec_model."),
    "language_model": ("language_model.",),
}
PROJECTOR = "projector"  # of the alignment


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The settings that determine a training's result.

    Raises ValueError naming the one that is invalid.

    Shares are fractions of the samples; `batch` is the global batch size of an optimizer step. Each
    loss is a mean over the samples that have it: "flow" over generation samples, "next_token" over
    the others.
    """

    trainable: tuple[str, ...]  # parts of the model; alignment's projector always learns
    lr: float
    warmup: int  # steps, linear
    steps: int
    batch: int
    mixture: dict[str, float]  # share of each kind of sample
    opening: dict[str, float] | None = None  # the shares of the first `opening_steps`
    opening_steps: int = 0
    schedule: str = "constant"  # after the warm-up; or cosine or linear, to 0 at the end
    decay_from: float = 0.0  # share of the steps after which the rate begins to fall
    optimizer: str = "adamw"
    betas: tuple[float, float] = (0.9, 0.95)
    rates: dict[str, float] = field(default_factory=dict)  # of parts, as multiples of lr
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0  # of the gradient's norm
    ema: float = 0.99  # warmed up as (step) / (step + 9)
    cond_dropout: float = 0.1  # for guidance
    density: str = "logit_normal"  # of t
    density_mean: float | None = None  # of logit(t); None is the density's own, here 0
    density_std: float | None = None  # None: 1
    shift: float = 1.0  # of t towards the noise
    shift_base: int = 0  # latent places at which that is the shift; 0: at any number of them
    image_grid: int = 0  # tokens a side whose positions larger and other grids keep; 0: the model's
    time_weight: str = "even"  # of the flow loss, a name of losses.WEIGHTS
    coupling: bool = False  # noise assigned to images by optimal transport in a micro-batch
    flow: float = 1.0  # weights of the losses; alignment has its own
    next_token: float = 1.0
    capacity: int = 4096  # places of a pack
    seed: int = 0

    def __post_init__(self):
        one_of("trainable", self.trainable, PARTS)
        one_of("schedule", [self.schedule], SCHEDULES)
        one_of("optimizer", [self.optimizer], OPTIMIZERS)
        one_of("rates", self.rates, (*PARTS, PROJECTOR))
        if not all(0 <= rate < float("inf") for rate in self.rates.values()):
            raise ValueError(f"rates are {self.rates}; expected multiples of lr, 0 or more")
        one_of("density", [self.density], DENSITIES)
        one_of("time_weight", [self.time_weight], WEIGHTS)
        for name in ("lr", "steps", "batch", "max_grad_norm", "shift", "capacity"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; expected a number above 0")
        limits.hold("number", self.batch, f"batch is {self.batch}")
        for name in ("warmup", "opening_steps", "flow", "next_token", "weight_decay"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 or more")
        for name in ("shift_base", "image_grid", "seed"):
            limits.within(name, getattr(self, name), 0, 2**31 - 1)
        if self.density_std is not None and not self.density_std > 0:
            raise ValueError(f"density_std is {self.density_std}; expected a number above 0")
        for name in self.time_options:
            if name not in options_of(self.density):
                raise ValueError(
                    f"density_{name} is {self.time_options[name]}, but the density "
                    f"{self.density!r} has no {name}; set density_{name}=null"
                )
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {self.betas}; expected two numbers in [0, 1)")
        for name in ("ema", "cond_dropout", "decay_from"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a share in [0, 1]")
        for shares in (self.mixture, self.opening or self.mixture):
            one_of("mixture", shares, KINDS)
            if not sum(shares.values()) > 0 or min(shares.values()) < 0:
                raise ValueError(f"mixture is {shares}; expected shares of at least 0, some above")

    def counts(self, step: int) -> dict[str, int]:
        """Returns the samples of each kind in the batch of a step, which sum to `batch` (largest
        remainders).

        A share of less than one sample per batch accumulates over steps, so that the mixture holds
        over a run.
        """
        shares = self.opening if self.opening and step < self.opening_steps else self.mixture
        return _summed(shares, self.batch, step, step + 1)

    def shift_at(self, places: int) -> float:
        """Returns the shift of t for latents with so many tokens: shift sqrt(tokens / shift_base).

        Larger images need more noise to be equally unclear. Esser et al. 2024 (SD3), eq. 23.
        """
        return self.shift * (places / self.shift_base) ** 0.5 if self.shift_base else self.shift

    def drawn(self, steps: int) -> dict[str, int]:
        """Returns each kind's samples in so many first steps together, the sums of `counts`."""
        opening = min(steps, self.opening_steps) if self.opening else 0
        found = Counter(_summed(self.opening or self.mixture, self.batch, 0, opening))
        found.update(_summed(self.mixture, self.batch, opening, steps))
        return found

    def rate_of(self, name: str) -> float:
        """Returns the factor of the learning rate of a parameter, by the part in its name."""
        name = name.removeprefix("model.")
        part = next((p for p, starts in PARTS.items() if name.startswith(starts)), PROJECTOR)
        return self.rates.get(part, 1.0)

    @property
    def time_options(self) -> dict[str, float]:
        """Options of the density from which the times are drawn."""
        options = dict(mean=self.density_mean, std=self.density_std)
        return {name: value for name, value in options.items() if value is not None}


def _summed(shares: dict[str, float], batch: int, first: int, last: int) -> dict[str, int]:
    """Returns the samples of each kind in the steps from `first` up to but excluding `last`."""
    counts, running, before = {}, 0.0, 0
    for name, share in shares.items():
        running += share * batch / sum(shares.values())
        now = rounded_sum(running, first, last)
        counts[name], before = now - before, now
    return counts


def rounded_sum(value: float, first: int, last: int) -> int:
    """Returns the sum over steps of `value` rounded to whole numbers, so that the mean stays exact.

    It is rounded up in a fraction of the steps given by its fractional part (golden ratio
    sequence). All values are rounded up at the same steps, so a larger value is never rounded
    lower.
    """
    whole = int(value + 1e-9)
    places = (np.arange(first, last) * 0.6180339887498949 + 0.5) % 1
    return whole * max(0, last - first) + int((value - whole - 1e-9 > places).sum())


@dataclass(frozen=True)
class SampleSchedule:
    """How many samples of each kind a step needs, and how many came before, when the stage changes
    in a run.

    `pieces` are (first step, stage), in rising order from step 0.
    """

    pieces: tuple[tuple[int, Stage], ...]

    def counts(self, step: int) -> dict[str, int]:
        """Returns the samples of each kind in the batch of a step."""
        return self.stage(step).counts(step)

    def stage(self, step: int) -> Stage:
        """Returns the stage that applies at a step."""
        return [stage for first, stage in self.pieces if first <= step][-1]

    def start(self, step: int) -> dict[str, int]:
        """Returns the samples of each kind in all earlier steps."""
        found: Counter[str] = Counter()
        ends = [first for first, _ in self.pieces[1:]] + [step]
        for (first, stage), end in zip(self.pieces, ends, strict=True):
            if first < step:
                found.update(stage.drawn(min(end, step)))
                found.subtract(stage.drawn(first))
        return found


def one_of(name: str, values, known) -> None:
    for value in values:
        choice(f"{name} holds", value, known)


def _shares(understanding: float, generation: float, text: float) -> dict[str, float]:
    return {"understanding": understanding, "generation": generation, "text": text}


TUNE = "tune"
ALL_BUT_VISION = ("linear", "generation", "language_model")
STAGES = {
    "1": Stage(  # adaptation of what is new
        trainable=("linear", "generation"),
        lr=1e-4,
        warmup=2_000,
        steps=10_000,
        batch=512,
        mixture=_shares(50, 50, 0),
    ),
    "2": Stage(  # unified pre-training; the paper's first version has no warm-up, 380,000 steps
        trainable=ALL_BUT_VISION,
        lr=1e-4,
        warmup=2_000,
        steps=390_000,
        batch=512,
        mixture=_shares(14, 80, 6),
        opening=_shares(30, 50, 20),
        opening_steps=10_000,
    ),
    "3": Stage(  # supervised fine-tuning
        trainable=("vision_encoder", *ALL_BUT_VISION),
        lr=2e-5,
        warmup=1_000,
        steps=26_000,
        batch=256,
        mixture=_shares(21, 70, 9),
    ),
    TUNE: Stage(  # a few images of one's own; not the paper's
        trainable=ALL_BUT_VISION,
        lr=5e-4,
        warmup=20,
        steps=300,
        batch=10,
        mixture=_shares(50, 50, 0),
        schedule="cosine",
        ema=0.98,
        density_mean=-1.0,
    ),
}
