"""Every registered solver keeps its promises: order, cost, and the range of its calls."""

import math

import pytest
import torch

import samplers
from samplers import SOLVERS, count, sample, trajectory
from samplers.core import Solver, advance, find, steps
from samplers.solvers import adams

FIXED = [s for s in SOLVERS.values() if s.fixed]
ORDERED = [s for s in FIXED if s.order]


def bend(x, t):
    """Takes x at t = 0 to x / (1 + x) at t = 1."""
    return -2 * t * x * x


def uneven(n):
    """n steps whose lengths alternate 1 : 2."""
    ends = torch.tensor([1.0, 2.0], dtype=torch.float64).repeat(n // 2).cumsum(0)
    return torch.cat([torch.zeros(1, dtype=torch.float64), ends]) / ends[-1]


X = torch.tensor([[0.6], [0.8], [1.0]], dtype=torch.float64)


def slope(error, n=256):
    """Observed order between n and 2 n steps."""
    return math.log2(error(n) / error(2 * n))


def observed_order(solver):
    return slope(lambda n: float((sample(bend, X, uneven(n), solver) - X / (1 + X)).norm()))


def named(solvers):
    return pytest.mark.parametrize("solver", solvers, ids=lambda s: s.name)


@named(ORDERED)
def test_the_observed_order_is_the_declared_one(solver):
    found = observed_order(solver)
    if solver.name == "auto":  # declares what holds in both directions
        assert found > solver.order - 0.1
    else:
        assert found == pytest.approx(solver.order, abs=0.1)


def wrong_time(v, x, ts):
    """Midpoint whose stage is evaluated at the start of the step."""
    for t, _, h in steps(ts):
        x = advance(x, (h, v(advance(x, (h / 2, v(x, t))), t)))
        yield x


def wrong_state(v, x, ts):
    """Midpoint whose stage goes a whole step."""
    for t, _, h in steps(ts):
        x = advance(x, (h, v(advance(x, (h, v(x, t))), t + h / 2)))
        yield x


def even_weights(v, x, ts):
    """Adams-Bashforth with the weights of even steps."""
    old = None
    for t, _, h in steps(ts):
        k = v(x, t)
        x = advance(x, (h, k)) if old is None else advance(x, (1.5 * h, k), (-0.5 * h, old))
        old = k
        yield x


def late(v, x, ts):
    """Adams-Bashforth of order 3 that starts with two steps of Euler's."""
    first = list(SOLVERS["euler"].path(v, x, ts[:3]))
    yield from first
    known = [(0, v(x, ts[0])), (1, v(first[0], ts[1]))]
    x = first[1]
    for n in range(2, len(ts) - 1):
        known.append((n, v(x, ts[n])))
        nodes = [float(ts[i]) for i, _ in known[-3:]]
        move = adams.move(adams.Form(), nodes[-1], float(ts[n + 1]), nodes)
        x = move(x, [k for _, k in known[-3:]])
        yield x


@pytest.mark.parametrize(
    ("path", "order"), [(wrong_time, 2), (wrong_state, 2), (even_weights, 2), (late, 3)]
)
def test_a_broken_solver_fails_the_test_of_order(path, order):
    broken = Solver(name=path.__name__, path=path, order=order, calls=1)
    assert abs(observed_order(broken) - order) > 0.1


@named(ORDERED)
def test_backward_undoes_forward_at_its_order(solver):
    def error(n):
        there = sample(bend, X, uneven(n), solver)
        return float((sample(bend, there, uneven(n).flip(0), solver) - X).norm())

    assert slope(error) > solver.order - 0.3


@named(FIXED)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 20])
def test_the_calls_are_the_declared_ones(solver, n):
    v = count(bend)
    sample(v, X, samplers.uniform(n), solver)
    assert v.calls == solver.cost(n)


@named([s for s in FIXED if isinstance(s.grid, str)])
def test_an_integer_is_spent_to_the_last_call(solver):
    calls, v = solver.cost(6), count(bend)
    sample(v, X, calls, solver)
    assert v.calls == calls and solver.steps(calls) == 6


@named(FIXED)
@pytest.mark.parametrize("ends", [(0, 1), (1, 0), (0.2, 0.7)])
def test_one_step_is_exact_on_a_straight_path(solver, ends):
    v = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.ones_like(v)
    end = sample(lambda *_: v, x, list(ends), solver)
    torch.testing.assert_close(end, x + (ends[1] - ends[0]) * v, rtol=0, atol=1e-13)


@named(FIXED)
@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0), (0.3, 0.8)])
def test_no_call_leaves_the_grid(solver, ends):
    seen = []

    def v(x, t):
        seen.append(float(t))
        return bend(x, t)

    sample(v, X, ends[0] + (ends[1] - ends[0]) * uneven(6), solver)
    assert min(ends) <= min(seen) and max(seen) <= max(ends)


@named(FIXED)
def test_a_trajectory_visits_every_time_and_ends_where_sample_does(solver):
    ts = uneven(8)
    path = list(trajectory(bend, X, ts, solver))
    assert [float(t) for t, _ in path] == ts.tolist()
    assert torch.equal(path[0][1], X) and torch.equal(path[-1][1], sample(bend, X, ts, solver))
    exact = X / (1 + X * ts[4] ** 2)
    assert (path[4][1] - exact).abs().max() < 0.15


@named(FIXED)
@pytest.mark.parametrize("shape", [(1, 5), (2, 3, 4), (2, 3, 2, 4, 4)])
def test_the_shape_of_the_state_does_not_matter(solver, shape):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
    solver = find(solver).linear  # what adapts looks at samples as wholes
    flat = sample(bend, x.reshape(-1, 1), uneven(6), solver)
    torch.testing.assert_close(sample(bend, x, uneven(6), solver), flat.reshape(shape))


@named(FIXED)
def test_a_bfloat16_network_moves_a_float32_state(solver):
    x = X.float()
    end = sample(lambda x, t: bend(x.bfloat16(), t), x, samplers.uniform(12), solver)
    assert end.dtype == torch.float32
    assert (end - x / (1 + x)).abs().max() < 0.06


@named(FIXED)
def test_the_caller_keeps_the_noise_and_the_velocities(solver):
    kept = []

    def v(x, t):
        k = bend(x, t)
        kept.append((k, k.clone(), x, x.clone()))
        return k

    x = X.clone()
    sample(v, x, uneven(6), solver)
    assert torch.equal(x, X)
    assert all(torch.equal(k, k0) and torch.equal(y, y0) for k, k0, y, y0 in kept)


@named(FIXED)
def test_gradients_reach_the_noise(solver):
    x = X.clone().requires_grad_()
    sample(bend, x, uneven(32), solver).sum().backward()
    torch.testing.assert_close(x.grad, 1 / (1 + X) ** 2, rtol=0.1, atol=0)


@pytest.mark.parametrize("sd", [0.0, 0.3, 1.0, 2.0])
def test_the_form_integrates_its_own_gaussian_exactly(sd):
    """N(0, sd^2): F vanishes, and the state only stretches."""
    if sd == 0:
        v = lambda x, t: -x / (1 - t)  # noqa: E731
    else:
        v = lambda x, t: x * (t * sd**2 - (1 - t)) / ((1 - t) ** 2 + (t * sd) ** 2)  # noqa: E731
    end = sample(v, X, [0, 0.3, 0.9], "exponential", sd=sd)
    torch.testing.assert_close(end, X * math.hypot(0.1, 0.9 * sd), rtol=1e-12, atol=0)


def test_the_family_runs_from_data_prediction_to_the_velocity():
    ends = {sd: sample(bend, X, uneven(6), "exponential", sd=sd) for sd in (0, 1, math.inf)}
    assert torch.equal(ends[0], sample(bend, X, uneven(6), "dpmpp_2m"))
    assert torch.equal(ends[math.inf], sample(bend, X, uneven(6), "ab2"))
    assert not torch.allclose(ends[1], ends[0]) and not torch.allclose(ends[1], ends[math.inf])


def test_two_predictions_of_the_data_give_the_formula_of_the_paper():
    """Second step of 2M in the clock (1 - t)^2, in which a prediction has no slope at its end."""
    a, b, c = 0.2, 0.5, 0.8
    x = list(trajectory(bend, X, [a, b, c], "dpmpp_2m"))
    first, second = (y + (1 - t) * bend(y, t) for t, y in x[:2])
    inner = torch.linspace(b, c, 20001, dtype=torch.float64)
    weight = ((1 - inner) ** 2 - (1 - b) ** 2) / ((1 - b) ** 2 - (1 - a) ** 2)
    weight = (1 - c) * torch.trapezoid(weight / (1 - inner) ** 2, inner)
    ratio = (1 - c) / (1 - b)
    expected = ratio * x[1][1] + (1 - ratio) * second + weight * (second - first)
    torch.testing.assert_close(x[2][1], expected, rtol=1e-7, atol=0)


def test_a_negative_deviation_is_refused():
    with pytest.raises(ValueError, match="standard deviation"):
        sample(bend, X, uneven(4), "exponential", sd=-1.0)
