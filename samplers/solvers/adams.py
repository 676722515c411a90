"""Linear multistep rules on uneven grids, shared by `multistep`, `exponential` and `auto`.

A form removes a linear part l(t) x from the velocity before it is extrapolated. With Phi'/Phi = l,

    d(x / Phi) / dt = F / Phi^2,    F = Phi v - Phi' x,

F is replaced by the polynomial in a clock u(t) through its known values, and integrated exactly
against dt / Phi^2. Every weight is a plain number, computed before the first evaluation and cached.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from samplers.solver_registry import Path, Velocity, advance

# Gauss-Legendre on [-1, 1], the positive half of the nodes and their weights: four points are exact
# for the polynomials in t of all orders here, ten good to 1e-13 for the others
FOUR = ((0.33998104358485626, 0.65214515486254614), (0.86113631159405258, 0.34785484513745386))
TEN = (
    (0.14887433898163121, 0.29552422471475287),
    (0.43339539412924719, 0.26926671930999636),
    (0.67940956829902441, 0.21908636251598204),
    (0.86506336668898451, 0.14945134915058059),
    (0.97390652851717172, 0.06667134430868814),
)


@dataclass(frozen=True)
class Form:
    """Phi^2 = ((1 - t) noise)^2 + (t data)^2; if both are None the velocity is used as it is (Phi =
    1).

    Phi is the standard deviation of the state if noise and data have these. (1, 0) makes F the
    prediction of the data, x + (1 - t) v; (0, 1) that of the noise, negated. A prediction is
    constant at the end that it predicts, dF/dt = (1 - t) dv/dt: in the clock t the polynomial
    through its values is the one without slope there, as otherwise the last steps would lose
    accuracy.
    """

    noise: float | None = None
    data: float | None = None
    pace: float | None = None  # the clock is the angle of (1 - t, pace t), or t itself

    @classmethod
    def of(cls, sd: float, pace: float | None = None, backward: bool = False) -> "Form":
        """Returns the form for data of standard deviation sd: 0 predicts the far end, infinity
        stands for v.

        When running backwards, the far end is the noise.
        """
        if not sd >= 0:
            raise ValueError(f"sd is {sd}; expected a standard deviation of at least 0")
        if math.isinf(sd):
            return cls(pace=pace)
        return cls(0.0, 1.0, pace) if backward and sd == 0 else cls(1.0, float(sd), pace)

    @property
    def plain(self) -> bool:
        return self.noise is None

    @property
    def predicts(self) -> bool:
        """Whether F is the prediction of an end of the path."""
        return self.noise == 0 or self.data == 0

    def scale(self, t: float) -> float:
        """The scale Phi(t)."""
        return 1.0 if self.plain else math.hypot((1 - t) * self.noise, t * self.data)

    def slope(self, t: float) -> float:
        """The slope Phi'(t)."""
        if self.plain:
            return 0.0
        return (t * self.data**2 - (1 - t) * self.noise**2) / self.scale(t)

    def clock(self, t: float) -> float:
        return t if self.pace is None else math.atan2(self.pace * t, 1 - t)

    def pole(self) -> complex | None:
        """The time where Phi^-2 is infinite, or the nearest to that for the quadrature."""
        return None if self.plain else self.noise / complex(self.noise, self.data)

    def cardinals(self, known: list[float]) -> Callable[[float], list[float]]:
        """Returns t -> the polynomials that are 1 at one of the known times and 0 at the others."""
        nodes = [self.clock(s) for s in known]
        others = [nodes[:j] + nodes[j + 1 :] for j in range(len(nodes))]
        units = [math.prod(a - b for b in rest) for a, rest in zip(nodes, others, strict=True)]

        def curves(t: float) -> list[float]:
            u = self.clock(t)
            return [
                math.prod([u - b for b in rest]) / unit
                for rest, unit in zip(others, units, strict=True)
            ]

        if not self.predicts or self.pace is not None:
            return curves
        end = 1.0 if self.data == 0 else 0.0
        slopes = [_level(end, known, j) for j in range(len(known))]
        return lambda t: [
            c * (1 + k * (s - t)) for c, k, s in zip(curves(t), slopes, known, strict=True)
        ]


def _level(end: float, known: list[float], j: int) -> float:
    """Returns k such that 1 + k (known[j] - t) cancels Lagrange's j-th slope at `end`."""
    slope = sum(1 / (end - s) for i, s in enumerate(known) if i != j)
    return slope / (1 + slope * (end - known[j]))


@dataclass(frozen=True)
class Move:
    """x at one time from x at another: ratio x + a weighted sum of values of F."""

    ratio: float
    weights: tuple[float, ...]

    def __call__(self, x: Tensor, values: list[Tensor]) -> Tensor:
        if self.ratio != 1:
            x = x * self.ratio
        first, *weights = self.weights
        x = torch.add(x, values[0], alpha=first)
        for w, value in zip(weights, values[1:], strict=False):
            x.add_(value, alpha=w)
        return x


def move(form: Form, a: float, b: float, known: list[float]) -> Move:
    """Returns the move from a to b with F known at some times."""
    curves = form.cardinals(known)
    if form.scale(b) == 0:  # the limit: all that matters is F at the end
        return Move(0.0, tuple(-w / form.slope(a) for w in curves(b)))
    weights = [0.0] * len(known)
    for t, w in _nodes(form, a, b):
        share = w * form.scale(b) / form.scale(t) ** 2
        weights = [w + share * c for w, c in zip(weights, curves(t), strict=True)]
    return Move(form.scale(b) / form.scale(a), tuple(weights))


def _nodes(form: Form, a: float, b: float) -> Iterator[tuple[float, float]]:
    """Returns quadrature nodes from a to bin intervals no longer than their distance to a pole."""
    pole = form.pole()
    if pole is not None and abs(b - a) > min(abs(a - pole), abs(b - pole)):
        middle = (a + b) / 2
        yield from _nodes(form, a, middle)
        yield from _nodes(form, middle, b)
        return
    for x, w in TEN if form.pace is not None or pole is not None else FOUR:
        for sign in (-1, 1):
            yield (a + b) / 2 + sign * x * (b - a) / 2, w * (b - a) / 2


@dataclass(frozen=True)
class Scheme:
    """The numbers of velocities that a predictor and its corrector use, if it has one.

    The corrector counts the new velocity.
    """

    predictor: int
    corrector: int = 0
    form: Form = Form()
    renewed: bool = True  # the start spends calls to keep the order; without, it is capped at 3

    @property
    def order(self) -> int:
        """The order of the error at the end; a prediction's last step uses the predictor only."""
        corrected = min(self.predictor + 1, self.corrector)
        return self.predictor if self.form.predicts else corrected or self.predictor

    @property
    def depth(self) -> int:
        """The number of earlier velocities that are kept."""
        return max(self.predictor, self.corrector)

    def start(self, steps: int) -> int:
        """How many first steps are taken together, because there are no earlier values yet."""
        return max(0, min(self.order - 2, steps - 1))

    def extra(self, steps: int) -> int:
        """Evaluations that the start takes beyond one per step."""
        return sum(n for n in range(1, self.start(steps) + 1) if self.renews(n))

    def renews(self, n: int) -> bool:
        """Whether the start computes all velocities again after n steps, for a higher order."""
        return self.renewed and n < self.order - 2


@dataclass(frozen=True)
class StartStep:
    """The n-th step of the start: from t_0 to t_n, then every earlier state again."""

    predict: Move
    settle: tuple[Move, ...]
    renew: bool


@dataclass(frozen=True)
class Weights:
    """All weights of a scheme on a grid."""

    scales: tuple[tuple[float, float], ...]  # Phi and Phi' where v is called
    start: tuple[StartStep, ...]
    steps: tuple[tuple[Move | None, Move], ...]  # correct the last step, predict the next


def _refuse_pole(form: Form, ts: tuple[float, ...]) -> None:
    """Raises ValueError if Phi is zero before the grid ends, as F ends there."""
    pole = form.pole()
    if pole is None or pole.imag:
        return
    if pole.real in ts[:-1] or min(ts) < pole.real < max(ts):
        raise ValueError(
            f"the grid goes from {ts[0]:g} to {ts[-1]:g}, and this solver cannot start at "
            f"t = {pole.real:g} or pass it; end the grid there or choose another solver"
        )


@lru_cache(maxsize=256)
def plan(ts: tuple[float, ...], scheme: Scheme) -> Weights:
    """Returns the weights of a scheme on a grid; one step is Euler's, exact for straight paths."""
    n, form = len(ts) - 1, scheme.form if len(ts) > 2 else Form()
    _refuse_pole(form, ts)

    def between(a: int, b: int, newest: int, points: int) -> Move:
        oldest = max(0, newest + 1 - points)
        return move(form, ts[a], ts[b], [ts[i] for i in range(newest, oldest - 1, -1)])

    def stage(i: int) -> StartStep:
        settle = tuple(between(j - 1, j, i, i + 1) for j in range(1, i + 1))
        return StartStep(between(0, i, i - 1, i), settle, scheme.renews(i))

    def step(i: int) -> tuple[Move | None, Move]:
        corrects = scheme.corrector and i > first
        correct = between(i - 1, i, i, scheme.corrector) if corrects else None
        return correct, between(i, i + 1, i, scheme.predictor)

    first = scheme.start(n)
    return Weights(
        scales=tuple((form.scale(t), form.slope(t)) for t in ts[:-1]),
        start=tuple(stage(i) for i in range(1, first + 1)),
        steps=tuple(step(i) for i in range(first, n)),
    )


def adams(v: Velocity, x: Tensor, ts: Tensor, scheme: Scheme) -> Path:
    """Predict, evaluate, correct (PEC): the step just taken is corrected with the new value.

    Without a corrector this is Adams-Bashforth. The value at the predicted state is kept, so a step
    takes one evaluation. The first steps are taken together: each new value improves all states
    since t_0, at which earlier values are evaluated again until they do not limit the order
    (deferred correction).
    """
    made = plan(tuple(ts.tolist()), scheme)
    at = list(zip(ts.unbind(), made.scales, strict=False))
    values = [_value(v, x, *at[0])]
    states = []
    for n, stage in enumerate(made.start, 1):
        values.insert(0, _value(v, stage.predict(x, values), *at[n]))
        states = _settle(x, values, stage.settle)
        if stage.renew:
            renewed = [_value(v, y, *at[i]) for i, y in enumerate(states, 1)]
            values = [*reversed(renewed), values[-1]]
    yield from states
    x = states[-1] if states else x
    yield from _walk(v, x, values, made.steps, at[len(states) :], scheme)


def _settle(x: Tensor, values: list[Tensor], moves: tuple[Move, ...]) -> list[Tensor]:
    states = []
    for one in moves:
        x = one(x, values)
        states.append(x)
    return states


def _walk(
    v: Velocity,
    x: Tensor,
    values: list[Tensor],
    steps: tuple[tuple[Move | None, Move], ...],
    at: list[tuple[Tensor, tuple[float, float]]],
    scheme: Scheme,
) -> Path:
    ahead = x
    for (correct, predict), place in zip(steps, at, strict=False):
        if ahead is not x:
            values = [_value(v, ahead, *place), *values[: scheme.depth - 1]]
            x = correct(x, values) if correct else ahead
            yield x
        ahead = predict(x, values)
    yield ahead


def _value(v: Velocity, x: Tensor, t: Tensor, scales: tuple[float, float]) -> Tensor:
    """F = Phi v - Phi' x."""
    scale, slope = scales
    if slope == 0 and scale == 1:
        return v(x, t)
    return advance(v(x, t) * scale, (-slope, x))
