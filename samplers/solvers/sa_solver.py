"""SA-Solver: a stochastic Adams method; Xue et al. 2023 (2309.05019), for the linear path.

With the prediction of the data D = x + (1 - t) v, the ratio r = t / (1 - t) and a noise strength
tau, a step of the diffusion that keeps the marginals is exactly

    x_s = (1 - s) / (1 - t) q^(tau^2) x_t + s integral of D du + (1 - s) sqrt(1 - q^(2 tau^2)) z

with q = r_t / r_s and u = (r / r_s)^(1 + tau^2) from q^(1 + tau^2) to 1. D is replaced by the
polynomial in t through its known values. tau = 0 is the ODE.
"""

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from samplers.solver_registry import Path, Velocity, advance, solver
from samplers.solvers.adams import TEN, Form
from samplers.solvers.stochastic import Generators, draws
from samplers.solvers.transitions import forward, not_negative

PREDICTOR, CORRECTOR = 2, 3  # values of D that the polynomial goes through


@solver(order=1, calls=1, stochastic=True)
def sa_solver(
    v: Velocity, x: Tensor, ts: Tensor, *, strength: float = 1.0, generator: Generators = None
) -> Path:
    """Predict, evaluate, correct in predictions of the data, with one draw of noise for both.

    strength is tau: 0 is the ODE, 1 the reverse-time diffusion. The order is that of the polynomial
    for the ODE; with noise it is 1, with a factor tau.
    """
    forward("sa_solver", ts[0], ts[-1])
    not_negative("strength", strength)
    draw, at, known = draws(x, generator), ts.tolist(), []
    ahead, noise = x, None
    for i, (t, (a, b)) in enumerate(zip(ts[:-1].unbind(), pairwise(at), strict=True)):
        known.insert(0, advance(ahead, (1 - a, v(ahead, t))))
        if i:
            nodes = at[i::-1][:CORRECTOR]
            x = _step(x, known, nodes, at[i - 1], a, strength, noise)
            yield x
        noise = draw()
        ahead = _step(x, known, at[i::-1][:PREDICTOR], a, b, strength, noise)
    yield ahead


def _step(
    x: Tensor, known: list[Tensor], nodes: list[float], a: float, b: float, tau: float, z: Tensor
) -> Tensor:
    """Steps from a to b with the polynomial through the newest values, which are at `nodes`."""
    q = a * (1 - b) / (b * (1 - a))
    kept = q ** (tau**2)  # 0 to the 0 is 1: the ODE from t = 0
    weights = [0.0] * len(nodes)
    curves = Form().cardinals(nodes)
    for t, w in _times(q, b, tau):
        weights = [old + b * w * c for old, c in zip(weights, curves(t), strict=True)]
    x = x * ((1 - b) / (1 - a) * kept)
    fresh = (1 - b) * (1 - kept**2) ** 0.5
    return advance(x, *zip(weights, known, strict=False), (fresh, z))


def _times(q: float, b: float, tau: float) -> Iterator[tuple[float, float]]:
    """Returns the quadrature over u from q^(1 + tau^2) to 1 as (time, weight)."""
    power = 1 + tau**2
    low = q**power
    for node, weight in TEN:
        for sign in (-1, 1):
            u = (1 + low) / 2 + sign * node * (1 - low) / 2
            share = u ** (1 / power)  # r / r_b
            yield b * share / (b * share + 1 - b), weight * (1 - low) / 2
