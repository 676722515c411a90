import math

import pytest
import torch

from samplers.core import SOLVERS, count, sample
from samplers.solvers import adaptive_per_sample

WHOLE = ["dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun"]
EACH = ["dopri5_per_sample", "bosh3_per_sample"]
SLACK = {"fehlberg2": 200}  # its estimate is that far below its error
GRID = torch.tensor([0.0, 1.0], dtype=torch.float64)


def bent(x, t):
    """-2 t x^2, which takes x at t = 0 to x / (1 + x) at t = 1."""
    return -2 * t.to(x) * x * x


def start(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64) + 0.5


def noting(v, times):
    def noted(x, t):
        times.append((float(t.min()), float(t.max())))
        return v(x, t)

    return noted


@pytest.mark.parametrize("rtol", [1e-3, 1e-6])
@pytest.mark.parametrize("name", WHOLE + EACH)
def test_the_error_is_about_the_tolerance(name, rtol):
    x = start(7, 3)
    error = (sample(bent, x, GRID, name, rtol=rtol, atol=rtol) - x / (1 + x)).abs().max()
    assert error < SLACK.get(name, 5) * rtol


@pytest.mark.parametrize("name", WHOLE + EACH)
def test_a_finer_tolerance_is_nearer_and_dearer(name):
    x = start(4)
    coarse, fine = count(bent), count(bent)
    far = sample(coarse, x, GRID, name, rtol=1e-2, atol=1e-2) - x / (1 + x)
    near = sample(fine, x, GRID, name, rtol=1e-6, atol=1e-6) - x / (1 + x)
    assert near.abs().max() < far.abs().max() and fine.calls > coarse.calls


@pytest.mark.parametrize("name", WHOLE + EACH)
def test_backward_undoes_forward(name):
    x = start(4, 2, 2)
    there = sample(bent, x, GRID, name, rtol=1e-5, atol=1e-5)
    back = sample(bent, there, GRID.flip(0), name, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(back, x, atol=SLACK.get(name, 100) * 1e-5, rtol=0)


@pytest.mark.parametrize("grid", [[0.0, 1.0], [1.0, 0.0], [0.3, 0.7], [0.0, 0.5, 0.7, 1.0]])
@pytest.mark.parametrize("field", ["constant", "tiny", "bent"])
@pytest.mark.parametrize("name", WHOLE + EACH)
def test_no_call_falls_outside_the_grid(name, field, grid):
    v = {
        "constant": lambda x, t: torch.ones_like(x),  # noqa: ARG005
        "tiny": lambda x, t: 1e-4 * x * t.to(x),  # here the trial call reaches t = 100 by itself
        "bent": bent,
    }[field]
    times, ts = [], torch.tensor(grid, dtype=torch.float64)
    for dtype in (torch.float64, torch.float32):
        sample(noting(v, times), 0.1 * start(3, 2).to(dtype), ts, name, rtol=1e-3, atol=1e-3)
    assert min(grid) <= min(a for a, _ in times) and max(b for _, b in times) <= max(grid)


@pytest.mark.parametrize("name", WHOLE + EACH)
def test_the_states_on_the_way_are_as_good_as_the_last(name):
    x, ts = start(5), torch.tensor([0.0, 0.2, 0.5, 1.0], dtype=torch.float64)
    for t, state in zip(ts[1:], SOLVERS[name].path(bent, x, ts, rtol=1e-5, atol=1e-5), strict=True):
        torch.testing.assert_close(
            state, x / (1 + t**2 * x), atol=SLACK.get(name, 20) * 1e-5, rtol=0
        )


@pytest.mark.parametrize("name", WHOLE + EACH)
def test_a_straight_path_takes_few_calls(name):
    v = count(lambda x, t: torch.full_like(x, 2.0))  # noqa: ARG005
    x = start(3)
    torch.testing.assert_close(sample(v, x, GRID, name), x + 2)
    assert v.calls < 100


@pytest.mark.parametrize("name", WHOLE + EACH)
def test_the_limit_on_calls_holds_and_is_explained(name):
    v = count(bent)
    with pytest.raises(RuntimeError, match=f"{name} reached its limit of 20 evaluations near t = "):
        sample(v, start(3), GRID, name, rtol=1e-12, atol=1e-12, max_calls=20)
    assert v.calls == 20


@pytest.mark.parametrize("name", WHOLE + EACH)
def test_a_field_too_steep_for_the_clock_is_explained(name):
    v = count(lambda x, t: 1e30 * x.cos())  # noqa: ARG005
    with pytest.raises(RuntimeError, match=f"{name} cannot meet rtol.* its step vanishes near t"):
        sample(v, start(2), GRID / 2 + 0.5, name)
    assert v.calls < 1000


@pytest.mark.parametrize("name", WHOLE + EACH)
def test_tolerances_beyond_the_dtype_are_refused(name):
    with pytest.raises(ValueError, match=r"finer than torch\.float32 resolves"):
        sample(bent, start(3).float(), GRID, name, rtol=1e-9, atol=1e-9)
    for wrong in (-1e-3, math.nan):
        with pytest.raises(ValueError, match="at least 0"):
            sample(bent, start(3), GRID, name, rtol=wrong)


@pytest.mark.parametrize("name", WHOLE + EACH)
def test_a_velocity_that_is_not_finite_ends_as_nan(name):
    def broken(x, t):
        return torch.where(t > 0.6, torch.nan, bent(x, t))

    (end,) = SOLVERS[name].path(broken, start(3), GRID)
    assert end.isnan().all()


@pytest.mark.parametrize("name", EACH)
def test_a_broken_sample_leaves_its_neighbours_alone(name):
    x = start(3, 2)
    poison = torch.tensor([0.0, math.nan, 0.0], dtype=torch.float64).view(3, 1)
    (end,) = SOLVERS[name].path(lambda x, t: bent(x, t) + poison * t, x, GRID)
    (whole,) = SOLVERS[name].path(bent, x, GRID)
    assert end[1].isnan().all() and torch.equal(end[[0, 2]], whole[[0, 2]])


@pytest.mark.parametrize("name", EACH)
def test_a_step_too_far_into_nan_is_tried_again(name):
    def v(x, t):  # falls fast from 1 to its rest at exp(-3); a long first step leaves the domain
        return -6 * (x.log() + 3) + 0 * t

    tried = []
    x = torch.ones(1, dtype=torch.float64)
    options = {"rtol": 1e-3, "atol": 1e-2, "nonfinite": "return"}
    end = sample(lambda x, t: tried.append(v(x, t)) or tried[-1], x, GRID, name, **options)
    assert torch.cat(tried).isnan().any()
    torch.testing.assert_close(end, torch.tensor([math.exp(-3)]).double(), atol=0.02, rtol=0)


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 2, 3, 3), (4, 1, 2, 2, 2)])
@pytest.mark.parametrize("name", EACH)
def test_a_sample_alone_and_in_a_batch_is_the_same(name, shape):
    x = start(*shape) * torch.tensor([0.01, 1.0, 20.0, 300.0]).view(4, *[1] * (len(shape) - 1))
    together = sample(bent, x, GRID, name, rtol=1e-4, atol=1e-4)
    alone = [sample(bent, row[None], GRID, name, rtol=1e-4, atol=1e-4) for row in x]
    assert torch.equal(together, torch.cat(alone))


def test_torchdiffeq_does_let_neighbours_in():
    """What the solvers of persample are for."""
    x = torch.tensor([0.01, 300.0], dtype=torch.float64)
    together = sample(bent, x, GRID, "dopri5", rtol=1e-4, atol=1e-4)
    assert together[0] != sample(bent, x[:1], GRID, "dopri5", rtol=1e-4, atol=1e-4)[0]


@pytest.mark.parametrize("name", EACH)
def test_each_sample_keeps_its_own_tolerance(name):
    x = torch.tensor([0.01, 1.0, 20.0, 300.0], dtype=torch.float64)
    error = (sample(bent, x, GRID, name, rtol=1e-5, atol=1e-7) * (1 + x) / x - 1).abs()
    assert error.max() < 1e-3


@pytest.mark.parametrize("name", EACH)
def test_a_batch_costs_what_its_hardest_sample_costs(name):
    x = torch.tensor([0.01, 1.0, 300.0], dtype=torch.float64)
    costs = []
    for batch in (x, x[:1], x[1:2], x[2:]):
        v = count(bent)
        sample(v, batch, GRID, name)
        costs.append(v.calls)
    assert costs[0] == max(costs[1:])


@pytest.mark.parametrize("name", EACH)
def test_time_has_one_entry_per_sample(name):
    shapes = set()

    def v(x, t):
        shapes.add(tuple(t.shape))
        return bent(x, t)

    sample(v, start(4, 3, 2, 2).float(), GRID, name)
    assert shapes == {(4, 1, 1, 1)}


@pytest.mark.parametrize(
    "tableau", [adaptive_per_sample.BOGACKI_SHAMPINE, adaptive_per_sample.DORMAND_PRINCE]
)
def test_tableaus_are_consistent(tableau):
    for c, row in zip(tableau.c, tableau.a, strict=True):
        assert sum(row) == pytest.approx(c, abs=1e-14)
    assert sum(tableau.e) == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize(
    "tableau", [adaptive_per_sample.BOGACKI_SHAMPINE, adaptive_per_sample.DORMAND_PRINCE]
)
def test_tableaus_have_the_order_they_declare(tableau):
    """The error of one step falls by 2^(order + 1), its estimate by 2^order, when h is halved."""
    errors, estimates = zip(*(one_step(tableau, h) for h in (0.08, 0.04)), strict=True)
    assert math.log2(errors[0] / errors[1]) == pytest.approx(tableau.order + 1, abs=0.2)
    assert math.log2(estimates[0] / estimates[1]) == pytest.approx(tableau.order, abs=0.2)


def one_step(tableau, h):
    x, t = torch.tensor([2.0], dtype=torch.float64), 0.3
    ks = [bent(x, torch.tensor(t, dtype=torch.float64))]
    for c, row in zip(tableau.c, tableau.a, strict=True):
        stage = x + h * sum(a * k for a, k in zip(row, ks, strict=True))
        ks.append(bent(stage, torch.tensor(t + c * h, dtype=torch.float64)))
    exact = 1 / (1 / x + (t + h) ** 2 - t**2)
    estimate = h * sum(e * k for e, k in zip(tableau.e, ks, strict=True))
    return float((stage - exact).abs()), float(estimate.abs())
