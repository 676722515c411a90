"""What a user may pass as a field, a state and a grid, and what is refused in a sentence."""

import copy
import pickle
import weakref
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch

import samplers
from samplers import SOLVERS, sample
from samplers.benchmark.problems import normal

X = normal(4, 3, seed=0).float()
FIXED = [name for name, one in SOLVERS.items() if one.fixed]
VELOCITY = [name for name, one in SOLVERS.items() if not one.maps]


def decay(x, t):  # noqa: ARG001
    return -x


class Network(torch.nn.Module):
    """A user's first network: t of shape (B,), in the state's dtype."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x, t, shift=0.0):
        return self.layer(torch.cat([x, t[:, None]], 1)) + shift


@pytest.mark.parametrize("name", ["euler", "auto", "dopri5", "dopri5_per_sample"])
def test_a_network_of_times_per_sample_is_helped_to_run(name):
    net, grid = Network(), [0, 0.5, 1]
    with pytest.raises(TypeError, match=r"pass samplers\.batched\(v\)"):
        sample(net, X, grid, name)
    assert sample(samplers.batched(net), X, grid, name).shape == X.shape


def test_batched_scales_the_time_turns_the_sign_and_passes_conditions():
    seen = []

    def net(x, t, label):
        seen.append((t, label))
        return x

    v = samplers.batched(net, scale=1000, sign=-1, label="cat")
    assert torch.equal(v(X, torch.tensor(0.25, dtype=torch.float64)), -X)
    assert torch.equal(seen[0][0], torch.full((4,), 250.0)) and seen[0][1] == "cat"
    with pytest.raises(ValueError, match="expected 1 "):
        samplers.batched(net, sign=0)


def test_a_network_that_asserts_a_batch_of_times_is_helped_to_run():
    def net(x, t):
        assert t.ndim == 1
        return x * t[:, None]

    with pytest.raises(TypeError, match=r"samplers\.batched"):
        sample(net, X, 4)


def test_an_error_of_the_network_itself_stays_as_it_is():
    def broken(*_):
        raise ValueError("no such prompt")

    with pytest.raises(ValueError, match=r"^no such prompt$"):
        sample(broken, X, 4)


@pytest.mark.parametrize("name", [*VELOCITY, "learned"])
def test_one_buffer_for_all_results_does_no_harm(name):
    solver = samplers.learned("mixture64-4") if name == "learned" else name
    ts = 4 if name == "learned" else [0, 0.3, 0.6, 1.0]
    out, end = torch.empty_like(X), []

    def into_a_buffer(x, t):
        return torch.mul(x, -t.to(x.dtype), out=out)

    for v in (into_a_buffer, lambda x, t: x * -t.to(x.dtype)):
        torch.manual_seed(0)
        end.append(sample(v, X, ts, solver))
    assert torch.allclose(*end, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("ring", "rest"), [(3, 0), (5, 0), (1, 3), (2, 5)])
def test_buffers_in_turn_or_after_a_warm_up_do_no_harm(ring, rest):
    buffers, turn = [torch.empty_like(X) for _ in range(ring)], count(-rest)

    def into_the_next(x, t):
        i, k = next(turn), -x * t.to(x.dtype)
        return k if i < 0 else buffers[i % ring].copy_(k)

    for name in ("abm5", "ab4"):
        alone = sample(lambda x, t: -x * t.to(x.dtype), X, 24, name)
        assert torch.equal(sample(into_the_next, X, 24, name), alone)
        turn = count(-rest)


@pytest.mark.parametrize("ring", [1, 3])
def test_memory_of_numpy_that_is_used_again_does_no_harm(ring):
    rows, turn = np.empty((ring, *X.shape), np.float32), count()

    def from_numpy(x, t):
        own = rows[next(turn) % ring]
        own[:] = -x * t
        return torch.from_numpy(own)

    alone = sample(lambda x, t: -x * t.to(x.dtype), X, 24, "ab4")
    assert torch.allclose(sample(from_numpy, X, 24, "ab4"), alone, rtol=0, atol=1e-6)


def test_a_run_keeps_no_velocity_that_its_solver_is_done_with():
    seen, alive = [], []

    def v(x, t):
        k = -x * t.to(x.dtype)
        alive.append(sum(one() is not None for one in seen))
        seen.append(weakref.ref(k))
        return k

    sample(v, X, 24, "euler")
    assert max(alive) <= 1


def test_a_network_behind_two_predictions_may_reuse_its_buffer():
    out = torch.empty_like(X)

    def net(weight):
        return lambda x, _: torch.mul(x, weight, out=out)

    guided = samplers.guide((net(-1.0), net(0.5)), 2.0)
    assert torch.allclose(sample(guided, X, 1, "euler"), X * (1 - 2.5))


@pytest.mark.parametrize("name", ["heun", "auto", "dopri5_per_sample"])
def test_a_state_may_be_a_tuple_or_a_dict(name):
    def v(state, t):
        return {"image": -state["image"], "audio": [state["audio"][0] * t.to(torch.float32)]}

    state = {"image": X.reshape(4, 1, 3), "audio": [torch.ones(4, 1)]}
    end = sample(v, state, torch.linspace(0, 1, 21), name)
    assert torch.allclose(end["image"], state["image"] * np.exp(-1), atol=2e-3)
    assert torch.allclose(end["audio"][0], torch.tensor(np.exp(0.5)).float(), atol=2e-3)


@pytest.mark.parametrize("calls", [np.int64(8), torch.tensor(8)])
def test_a_number_of_calls_may_be_any_whole_number(calls):
    assert torch.equal(sample(decay, X, calls), sample(decay, X, 8))


@pytest.mark.parametrize("calls", [True, 8.0])
def test_what_is_no_whole_number_is_refused(calls):
    with pytest.raises(TypeError, match="not a number of evaluations"):
        sample(decay, X, calls)


class Output:
    sample = X


@pytest.mark.parametrize(
    ("result", "told"),
    [(None, "returned NoneType"), (Output(), r"out\.sample"), (X * 1j, "dtype torch.complex64")],
)
def test_what_is_no_velocity_is_refused(result, told):
    with pytest.raises(TypeError, match=told):
        sample(lambda *_: result, X, 4)


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=lambda s: s.name)
def test_a_solver_survives_pickling(solver):
    assert pickle.loads(pickle.dumps(solver)) == solver


def test_options_survive_pickling():
    mild = SOLVERS["exponential"].with_options(sd=2.0)
    again = pickle.loads(pickle.dumps(mild))
    assert torch.equal(sample(decay, X, 4, again), sample(decay, X, 4, mild))


@pytest.mark.parametrize("name", ["heun", "sde_heun", "dopri5", "restart_heun"])
def test_a_changed_solver_survives_pickling(name):
    for solver in (replace(SOLVERS[name], grid="cosine"), replace(SOLVERS["heun"], name="mine")):
        assert pickle.loads(pickle.dumps(solver)) == copy.deepcopy(solver) == solver


@pytest.mark.parametrize("name", VELOCITY)
def test_an_empty_batch_needs_no_call(name):
    v = samplers.count(decay)
    assert sample(v, X[:0], [0, 0.5, 1], name).shape == (0, 3) and v.calls == 0


@pytest.mark.parametrize("name", ["euler", "heun", "abm", "auto"])
def test_transforms_of_functions_go_through_a_run(name):
    each = torch.vmap(lambda x: sample(decay, x, 6, name))(X)
    assert torch.allclose(each, sample(decay, X, 6, name))
    weights = normal(2, 3, 3, seed=1).float()
    one = torch.vmap(lambda w: sample(lambda x, _: x @ w, X, 6, name))(weights)
    assert torch.allclose(one[1], sample(lambda x, _: x @ weights[1], X, 6, name), atol=1e-5)
    slope = torch.func.jacrev(lambda x: sample(decay, x, 6, name).sum())(X)
    _, along = torch.func.jvp(lambda x: sample(decay, x, 6, name), (X,), (X,))
    assert torch.allclose(slope[0, 0] * X, along, atol=1e-5)


def test_vmap_of_what_looks_at_the_state_is_refused():
    with pytest.raises(TypeError, match="fixed steps"):
        torch.vmap(lambda x: sample(decay, x[None], [0, 1], "dopri5_per_sample"))(X)
    for run in (samplers.picard, samplers.pilot):
        with pytest.raises(TypeError, match="as one batch"):
            torch.vmap(lambda x, run=run: run(decay, x[None], 8))(X)


def test_transforms_of_torchdiffeqs_solvers_are_refused():
    with pytest.raises(TypeError, match="choose dopri5_per_sample"):
        torch.func.jvp(lambda x: sample(decay, x, [0, 1], "dopri5"), (X,), (X,))


@pytest.mark.parametrize("name", [name for name in VELOCITY if SOLVERS[name].time_gradient])
def test_times_get_their_gradient(name):
    def end(ts):
        return sample(lambda x, t: torch.sin(x) * (1 + t), X.double(), ts, name)

    ts = torch.tensor([0.1, 0.4, 0.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(end, ts)


@pytest.mark.parametrize("name", [n for n in VELOCITY if not SOLVERS[n].time_gradient])
def test_a_solver_that_gives_times_no_gradient_says_so(name):
    ts = torch.tensor([0.1, 0.4, 0.9], requires_grad=True)
    with pytest.raises(ValueError, match=r"pass ts\.detach\(\)"):
        sample(decay, X, ts, name)
    with torch.no_grad():
        sample(decay, X, ts, name)


@pytest.mark.parametrize("name", [n for n in VELOCITY if not SOLVERS[n].adaptive])
def test_state_and_parameters_get_their_gradient(name):
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    x = normal(2, 2, seed=3).requires_grad_()

    def end(x, weight):
        torch.manual_seed(0)
        return sample(lambda x, _: -weight * x * x.abs(), x, [0, 0.5, 1], name)

    assert torch.autograd.gradcheck(end, (x, weight), fast_mode=True)


@pytest.mark.parametrize("name", [n for n in VELOCITY if SOLVERS[n].adaptive])
def test_adaptive_solvers_give_the_gradient_of_the_flow(name):
    """v = -w x |x| ends at x / (1 + w |x|)."""
    w = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[1.0, 2.0], [0.1, -3.0]], dtype=torch.float64, requires_grad=True)
    end = sample(lambda x, _: -w * x * x.abs(), x, [0, 1], name, rtol=1e-4, atol=1e-4)
    of_x, of_w = torch.autograd.grad(end.sum(), (x, w))
    away = (1 + w * x.abs()) ** 2
    assert torch.allclose(of_x, 1 / away, atol=0.02)
    assert torch.allclose(of_w, (-x * x.abs() / away).sum(), atol=0.02)
