"""Guidance: two predictions of the velocity become one.

A rule is a function (cond, uncond, t) -> velocity. `cond` follows the prompt; `uncond` is whatever
to move away from: the empty prompt, a negative prompt, or a weaker model. States have any shape
with the batch first, and every norm, mean and projection is taken sample by sample.

The weight w means v = uncond + w (cond - uncond), so that 1 is no guidance at all. Wherever a rule
takes a weight it takes a number, a tensor (B,) with one number per sample, or a function of t;
wherever it takes another rule it takes any function (cond, uncond, t), or a weight for `cfg`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from samplers.fields import jumps_of

Velocity = Callable[[Tensor, Tensor], Tensor]
Combine = Callable[[Tensor, Tensor, Tensor], Tensor]
Weight = float | Tensor | Callable[[Tensor], float | Tensor]

RULES: dict[str, Callable[..., "Rule"]] = {}
LARGEST = 3e38  # weight
MOST_STEPS = 100_000  # of a run that cfg++ is made for


@dataclass(frozen=True)
class Rule:
    """How to combine two predictions, and how many of them that takes at time t.

    reads(t) is 2 where both matter, 1 where the result is `cond` as it stands, 0 where it is zero.
    `jumps` are the times at which the velocity jumps: grids place a time there, and solvers begin
    anew, each side seeing its own limit.
    """

    combine: Combine
    reads: Callable[[Tensor], int] = lambda _: 2
    jumps: tuple[float, ...] = ()

    def __call__(self, cond: Tensor, uncond: Tensor, t: Tensor) -> Tensor:
        return self.combine(cond, uncond, t)


def rule(make=None, *, name: str | None = None):
    """Registers a function that makes a rule from a weight (and options with defaults) in RULES."""
    if make is None:
        return lambda make: rule(make, name=name)
    RULES[name or make.__name__] = make
    return make


def parse(text: str) -> Rule:
    """A registered rule written as name:number,number,... such as "cfg:2" or "within:4,0.1,0.9"."""
    name, _, numbers = text.partition(":")
    if name not in RULES:
        raise ValueError(f"no guidance rule named {name!r:.80}; choose one of {', '.join(RULES)}")
    try:
        return RULES[name](*(float(number) for number in numbers.split(",")))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"guidance {text!r:.80} does not read as name:number,..., for example {name}:2 "
            f"({error!s:.200})"
        ) from error


@rule
def cfg(weight: Weight) -> Rule:
    """Classifier-free guidance, uncond + w (cond - uncond); Ho and Salimans 2022.

    Raises TypeError for what is not a number and ValueError for NaN and infinity.
    """
    w = _schedule(weight)
    return Rule(
        lambda cond, uncond, t: torch.lerp(uncond, cond, _at(w, t, cond)),
        _unless_one(w),
        jumps_of(weight),
    )


@rule
def autoguidance(weight: Weight) -> Rule:
    """Away from a worse model: the formula of `cfg` for the pair (strong, weak), both prompted.

    Karras et al. 2024, "Guiding a Diffusion Model with a Bad Version of Itself".
    """
    return cfg(weight)


@rule
def within(guided: Combine | float | Tensor, start: float = 0.1, stop: float = 0.9) -> Rule:
    """Guides while start <= t <= stop and follows `cond` elsewhere; Kynkäänniemi et al. 2024."""
    guided = _as_rule(guided)
    if not start <= stop:
        raise ValueError(f"guidance from t = {start} to {stop} never acts; give start <= stop")

    def inside(t: Tensor) -> Tensor:
        return (t >= start) & (t <= stop)

    def combine(cond: Tensor, uncond: Tensor, t: Tensor) -> Tensor:
        return _where(inside(t), guided(cond, uncond, t), cond)

    jumps = (float(start), *(t for t in guided.jumps if start < t < stop), float(stop))
    return Rule(combine, lambda t: guided.reads(t) if inside(t).any() else 1, jumps)


@rule
def rescaled(guided: Combine | float | Tensor, phi: float = 0.7) -> Rule:
    """Gives the guided velocity g back the deviation of `cond`, by the share phi in [0, 1].

    g (1 - phi + phi std(cond) / std(g)), deviations per sample; Lin et al. 2024, section 3.4.
    """
    guided = _as_rule(guided)
    if not 0 <= phi <= 1:
        raise ValueError(f"the share of rescaling is {phi}; choose it between 0 (none) and 1")

    def combine(cond: Tensor, uncond: Tensor, t: Tensor) -> Tensor:
        g = guided(cond, uncond, t)
        return torch.lerp(g, g * _ratio(_deviation(cond), _deviation(g), otherwise=1.0), phi)

    return Rule(combine, guided.reads, guided.jumps)


@rule
def zero_star(weight: Weight, until: float = 0.04) -> Rule:
    """CFG-Zero*: s uncond + w (cond - s uncond), s = <cond, uncond> / |uncond|^2; first nothing.

    While t < until the state stands still, because there the guided velocity is worse than none,
    and no network is called. until = 0 moves from the start, and so does w = 1. Fan et al. 2025
    (2503.18886).
    """
    w = _schedule(weight)

    def combine(cond: Tensor, uncond: Tensor, t: Tensor) -> Tensor:
        scale = _ratio(_dot(cond, uncond), _dot(uncond, uncond), otherwise=1.0)
        value = _at(w, t, cond)
        moving = (t >= until) | (value == 1)
        return _where(moving, torch.lerp(scale * uncond, cond, value), torch.zeros_like(cond))

    def reads(t: Tensor) -> int:
        value = w(t)
        still = isinstance(value, float) and value != 1 and bool((t < until).all())
        return 0 if still else _unless_one(w)(t)

    begins = () if isinstance(weight, Real) and weight == 1 else (float(until),)
    return Rule(combine, reads, (*begins, *jumps_of(weight)))


@rule
def projected(weight: Weight, parallel: float = 0.0, radius: float = math.inf) -> Rule:
    """Adaptive projected guidance, cond + (w - 1) (d_orthogonal + parallel d_parallel).

    d = cond - uncond, shortened to at most `radius` (a Euclidean norm per sample), is split along
    and across `cond`; the part along it is what saturates. Sadat et al. 2024 (2410.02416). They
    split predictions of the data; a rule sees velocities, and splits these as diffusers does.
    Their momentum is left out: it would make v depend on the calls before, and solvers that repeat,
    reject or reuse calls need a function of (x, t) alone.
    """
    w = _schedule(weight)
    if not radius > 0:
        raise ValueError(f"the radius of projected guidance is {radius}; it must be positive")

    def combine(cond: Tensor, uncond: Tensor, t: Tensor) -> Tensor:
        d = cond - uncond
        d = d * _ratio(torch.tensor(radius), _dot(d, d).sqrt(), otherwise=1.0).clamp(max=1.0)
        along = _ratio(_dot(d, cond), _dot(cond, cond), otherwise=0.0) * cond
        return cond + (_at(w, t, cond) - 1) * (d - (1 - parallel) * along)

    return Rule(combine, _unless_one(w), jumps_of(weight))


@rule(name="cfg++")
def cfg_plus_plus(weight: float, steps: int | Tensor = 30) -> Rule:
    """CFG++ for flows: each step renoises the guided data with the unconditional noise.

    From t to s that reads s data_guided + (1 - s) noise_uncond, with data = x + (1 - t) v and
    noise = x - t v: an Euler step of `cfg` with the weight w s (1 - t) / (s - t). Exact for Euler
    on the grid given as `steps`, uniform if it is a number; other solvers see that weight held
    during each step. w lies in [0, 1] and 1 does not mean no guidance. Chung et al. 2024.
    """
    if isinstance(weight, Tensor) or callable(weight):
        raise TypeError("the weight of cfg++ is one number; weigh by time or by sample with cfg")
    if not isinstance(steps, Tensor) and not 1 <= steps <= MOST_STEPS:
        raise ValueError(f"cfg++ is made for {steps:g} steps; give it 1 to {MOST_STEPS}")
    grid = steps if isinstance(steps, Tensor) else _uniform(int(steps))
    if grid.ndim != 1 or len(grid) < 2 or not (grid.diff() > 0).all():
        raise ValueError("cfg++ needs the increasing grid of the sampling run, or its steps")
    weights = _number(weight) * grid[1:] * (1 - grid[:-1]) / grid.diff()

    def held(t: Tensor) -> Tensor:
        step = torch.searchsorted(grid.to(t), t.contiguous() + 1e-9, right=True) - 1
        return weights.to(t)[step.clamp(0, len(weights) - 1)]

    held.jumps = tuple(grid[1:-1].tolist())
    return cfg(held)


@dataclass(frozen=True)
class Pair:
    """both(x, t) -> (cond, uncond), and if it can be had alone, cond(x, t).

    cost(t, reads) counts the network evaluations per sample for the first `reads` predictions;
    `jumps` are times at which a prediction jumps.
    """

    both: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    cond: Velocity | None = None
    cost: Callable[[Tensor, int], int] = lambda _, reads: reads
    jumps: tuple[float, ...] = ()


def pair(cond: Velocity, uncond: Velocity) -> Pair:
    """Two velocities, guided ones included, evaluated one after the other."""

    def cost(t: Tensor, reads: int) -> int:
        return sum(v.cost(t) if isinstance(v, Guided) else 1 for v in (cond, uncond)[:reads])

    jumps = (*jumps_of(cond), *jumps_of(uncond))
    return Pair(lambda x, t: (cond(x, t).clone(), uncond(x, t)), cond, cost, jumps)


def stacked(both: Velocity, cond: Velocity | None = None) -> Pair:
    """One call for both predictions: `both` gets (2 B, ...), conditional rows first."""

    def split(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return both(torch.cat((x, x)), torch.cat((t, t)) if t.ndim else t).chunk(2)

    return Pair(split, cond, jumps=jumps_of(both))


@dataclass
class Guided:
    """The velocity that a rule makes of a pair; `calls` adds up what it has evaluated."""

    pair: Pair
    rule: Rule
    calls: int = 0

    @property
    def jumps(self) -> tuple[float, ...]:
        """Times at which the velocity jumps, rising."""
        return tuple(sorted({*self.pair.jumps, *self.rule.jumps}))

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        reads = self._reads(t)
        self.calls += self.pair.cost(t, reads)
        if reads == 0:
            return torch.zeros_like(x)
        if reads == 1:
            return self.pair.cond(x, t)
        cond, uncond = self.pair.both(x, t)
        return self.rule(cond.to(x.dtype), uncond.to(x.dtype), t)

    def checked(self) -> "Guided":
        """The same field, which looks at each prediction and at what the rule makes of them.

        FloatingPointError names the first that is not finite, with its time and sample. Each look
        waits for the device: for finding out, not for use.
        """

        def looked(name: str, v: Tensor, t: Tensor) -> Tensor:
            rows = v.isfinite().flatten(1).all(1) if v.ndim > 1 else v.isfinite()
            if not bool(rows.all()):
                sample = int((~rows).int().argmax())
                raise FloatingPointError(
                    f"{name} is not finite at t = {float(t.min()):.6g}, first in sample "
                    f"{sample + 1} of {len(v)}"
                )
            return v

        def both(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            cond, uncond = self.pair.both(looked("the state", x, t), t)
            cond = looked("the velocity with the prompt", cond, t)
            return cond, looked("the velocity without the prompt", uncond, t)

        def combine(cond: Tensor, uncond: Tensor, t: Tensor) -> Tensor:
            return looked("the guided velocity", self.rule(cond, uncond, t), t)

        one = self.pair.cond
        if one is not None:

            def one(x: Tensor, t: Tensor) -> Tensor:
                return looked("the velocity with the prompt", self.pair.cond(x, t), t)

        watched = Pair(both, one, self.pair.cost, self.pair.jumps)
        return Guided(watched, Rule(combine, self.rule.reads, self.rule.jumps))

    def cost(self, t: Tensor) -> int:
        """Network evaluations per sample that one call at t spends: with two networks, 0 to 2."""
        return self.pair.cost(t, self._reads(t))

    def _reads(self, t: Tensor) -> int:
        reads = self.rule.reads(t)
        return 2 if reads == 1 and self.pair.cond is None else reads


def guide(predictions: Pair | tuple[Velocity, Velocity], rule: Combine | float | Tensor) -> Guided:
    """The velocity (x, t) -> v of a guided field, ready for any solver.

    `predictions` is a Pair, a tuple of two velocities (cond, uncond), or a function (x, t) that
    returns both predictions. Where the rule leaves `cond` as it is, the second prediction is not
    evaluated. Predictions of a narrower dtype are combined in the state's dtype.
    """
    if isinstance(predictions, tuple):
        predictions = pair(*predictions)
    elif not isinstance(predictions, Pair):
        predictions = Pair(predictions)
    return Guided(predictions, _as_rule(rule))


def _uniform(steps: int) -> Tensor:
    return torch.linspace(0, 1, steps + 1, dtype=torch.float64)


def _as_rule(value: Combine | float | Tensor) -> Rule:
    if isinstance(value, Rule):
        return value
    return Rule(value) if callable(value) else cfg(value)


def _number(weight: float | Tensor) -> float | Tensor:
    """A finite float, or a finite tensor with one weight per sample."""
    if isinstance(weight, Tensor) and weight.ndim > 0:
        if not weight.isfinite().all():
            raise ValueError("guidance weights hold NaN or infinity; give finite ones, 1 for none")
        return weight
    if isinstance(weight, bool) or not isinstance(weight, Real | Tensor):
        raise TypeError(f"guidance weight {weight!r} is not a number; give one, 1 for no guidance")
    if not abs(weight) <= LARGEST:  # NaN included; beyond it float32 overflows
        raise ValueError(
            f"guidance weight {weight:g} is not finite in float32; 1 means no guidance"
        )
    return float(weight)


def _schedule(weight: Weight) -> Callable[[Tensor], float | Tensor]:
    if callable(weight):
        return lambda t: _number(weight(t))
    constant = _number(weight)
    return lambda _: constant


def _unless_one(w: Callable[[Tensor], float | Tensor]) -> Callable[[Tensor], int]:
    """Reads `cond` alone at weight 1; to look for ones in a tensor would wait for the device."""

    def reads(t: Tensor) -> int:
        value = w(t)
        return 1 if isinstance(value, float) and value == 1 else 2

    return reads


def _at(w: Callable[[Tensor], float | Tensor], t: Tensor, like: Tensor) -> float | Tensor:
    value = w(t)
    if isinstance(value, float):
        return value
    if len(value) not in (1, len(like)):
        raise ValueError(f"{len(value)} guidance weights for {len(like)} samples; give one each")
    return value.to(like).reshape(-1, *[1] * (like.ndim - 1))


def _where(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    if mask.ndim == 0:
        return yes if mask else no
    return torch.where(mask, yes, no)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product per sample, (B, ...) twice -> (B, 1, ..., 1)."""
    return (a * b).reshape(len(a), -1).sum(1).reshape(-1, *[1] * (a.ndim - 1))


def _deviation(x: Tensor) -> Tensor:
    """Standard deviation per sample, (B, ...) -> (B, 1, ..., 1)."""
    flat = x.reshape(len(x), -1)
    return flat.std(1, correction=0).reshape(-1, *[1] * (x.ndim - 1))


def _ratio(a: Tensor, b: Tensor, otherwise: float) -> Tensor:
    return torch.where(b == 0, otherwise, a / b)
