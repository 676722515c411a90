"""Running a solver: what is accepted, what is refused, and what adding one takes."""

import pytest
import torch

import samplers
from samplers import GRIDS, SOLVERS, count, sample, trajectory
from samplers.core import advance, solver, steps

X = torch.tensor([[0.5, 1.0]], dtype=torch.float64)


def bend(x, t):
    return -2 * t * x * x


def test_a_solver_is_one_function_and_found_by_its_name():
    @solver(order=1, calls=1)
    def leap(v, x, ts):
        """Euler's rule by another name."""
        for t, _, h in steps(ts):
            x = x + h * v(x, t)
            yield x

    try:
        assert SOLVERS["leap"].doc == "Euler's rule by another name."
        torch.testing.assert_close(sample(bend, X, 5, "leap"), sample(bend, X, 5, "euler"))
        row = samplers.benchmark.run(bend, X, calls=[4], solvers=["leap"], others=False).rows[0]
        assert row.solver == "leap"
    finally:
        del SOLVERS["leap"]


def test_a_solver_itself_serves_as_well_as_its_name():
    assert torch.equal(sample(bend, X, 8, SOLVERS["rk4"]), sample(bend, X, 8, "rk4"))


def test_an_unknown_solver_brings_the_list_of_known_ones():
    with pytest.raises(ValueError, match=r"'eular'.*euler, midpoint, heun"):
        sample(bend, X, 4, "eular")


def test_options_reach_the_solver_and_unknown_ones_are_refused():
    mild = SOLVERS["exponential"].with_options(sd=2.0)
    assert torch.equal(sample(bend, X, 5, mild), sample(bend, X, 5, "exponential", sd=2.0))
    assert not torch.equal(sample(bend, X, 5, mild), sample(bend, X, 5, "exponential"))
    with pytest.raises(TypeError, match="no option 'rho'; choose from sd, pace"):
        sample(bend, X, 5, "exponential", rho=7)
    with pytest.raises(TypeError, match="no option 'sd'"):
        sample(bend, X, 5, "euler", sd=1)


@pytest.mark.parametrize(
    ("name", "calls", "works"),
    [("rk4", 7, "4 or 8"), ("heun", 5, "4 or 6"), ("heun", 0, "2"), ("abm4", 2, "1 or 3")],
)
def test_calls_that_a_rule_cannot_spend_are_refused_with_those_it_can(name, calls, works):
    with pytest.raises(ValueError, match=f"cannot use {calls} evaluations; give it {works}$"):
        sample(bend, X, calls, name)


@pytest.mark.parametrize(
    ("ts", "message"),
    [
        ([0, 0.5, 0.5, 1], "times 1 and 2 are 0.5 and 0.5"),
        ([0, 0.6, 0.3, 1], "times 1 and 2 are 0.6 and 0.3"),
        ([1, 0.6, 0.8, 0], "times 1 and 2 are 0.6 and 0.8"),
        ([0, float("nan"), 1], "strictly"),
        ([0, 1, 0], "strictly"),
        ([0.5], "at least two times"),
        ([[0, 1]], "at least two times"),
    ],
)
def test_a_grid_that_is_not_monotonic_is_refused(ts, message):
    with pytest.raises(ValueError, match=message):
        sample(bend, X, torch.tensor(ts), "euler")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_state_narrower_than_float32_is_widened(dtype):
    narrow = X.to(dtype)
    end = sample(bend, narrow, 4)
    assert end.dtype == torch.float32 and torch.equal(end, sample(bend, narrow.float(), 4))


def test_a_state_of_whole_numbers_is_refused():
    with pytest.raises(TypeError, match="floating-point"):
        sample(bend, X.long(), 4)


@pytest.mark.parametrize("name", ["euler", "heun", "rk4", "ab3", "auto", "unipc3"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_velocity_that_is_not_finite_is_named_by_its_time(name, bad):
    def v(x, t):
        return torch.where(torch.tensor(0.5 <= float(t) < 0.7), bad, bend(x, t))

    with pytest.raises(FloatingPointError, match=r"not finite at t = 0\.5"):
        sample(v, X, [0, 0.25, 0.5, 0.75, 1], name)
    end = sample(v, X, [0, 0.25, 0.5, 0.75, 1], name, nonfinite="return")
    assert not end.isfinite().all()


def test_nonfinite_takes_two_words():
    with pytest.raises(ValueError, match="'ignore'"):
        sample(bend, X, 4, nonfinite="ignore")


def test_a_velocity_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="return a velocity of the shape"):
        sample(lambda x, _: x[:, :1], X, 4)


def test_a_trajectory_complains_before_it_starts():
    with pytest.raises(ValueError, match="no solver"):
        trajectory(bend, X, 4, "nothing")


def test_times_reach_the_velocity_as_float64_scalars_on_the_cpu():
    seen = []
    sample(lambda x, t: seen.append(t) or bend(x, t), X.float(), 6, "midpoint")
    assert {(t.shape, t.dtype, t.device.type) for t in seen} == {((), torch.float64, "cpu")}


def test_count_asks_a_field_that_counts_for_itself():
    class Twice:
        calls = 3

        def __call__(self, x, t):
            self.calls += 2
            return bend(x, t)

    v = count(Twice())
    sample(v, X, 5, "euler")
    assert v.calls == 10


@pytest.mark.parametrize("name", ["euler", "heun", "abm"])
def test_a_compiled_velocity_gives_the_same_end(name):
    compiled = torch.compile(bend, backend="aot_eager")
    torch.testing.assert_close(sample(compiled, X, 8, name), sample(bend, X, 8, name))


def test_advance_leaves_its_arguments_alone():
    x, k = X.clone(), X.clone()
    assert torch.allclose(advance(x, (2.0, k), (1.0, k)), 4 * X)
    assert torch.equal(x, X) and torch.equal(k, X)


@pytest.mark.parametrize("name", ["euler", "heun", "ab2", "abm", "auto"])
def test_no_step_looks_at_the_state(name):
    """What would wait for a GPU: .item(), bool() and .tolist() of a state, until the end."""

    class Watched(torch.Tensor):
        @classmethod
        def __torch_function__(cls, f, types, args=(), kwargs=None):
            assert f.__name__ not in {"item", "tolist", "__bool__", "__float__", "cpu", "numpy"}
            return super().__torch_function__(f, types, args, kwargs or {})

    sample(bend, X.as_subclass(Watched), 8, name, nonfinite="return")


def test_every_grid_can_stand_in_for_the_solvers_own():
    for name, place in GRIDS.items():
        end = sample(bend, X, place(32), "abm3")
        assert (end - X / (1 + X)).abs().max() < 1e-2, name
