"""What a run is given at its borders: velocities, states, times and defaults that are none."""

import copy

import numpy as np
import pytest
import torch

import samplers
from samplers import PROBLEMS, SOLVERS, sample, trajectory

P = PROBLEMS["mixture"](dim=4)
X = P.noise(3)
FIXED = ["euler", "heun", "auto", "abm4", "rk4", "dpmpp_2m", "fireflow"]


@pytest.fixture
def elsewhere():
    """torch's default device is another one, as after torch.set_default_device("cuda")."""
    before = torch.get_default_device()
    torch.set_default_device("meta")
    yield
    torch.set_default_device(before)


@pytest.mark.parametrize("name", FIXED)
def test_the_default_device_does_not_move_times_or_weights(name, elsewhere):  # noqa: ARG001
    end = sample(P.velocity, X, [0.0, 0.3, 0.6, 1.0], name)
    assert end.device.type == "cpu" and bool(end.isfinite().all())


@pytest.mark.parametrize("name", samplers.GRIDS)
def test_the_default_device_does_not_move_a_grid(name, elsewhere):  # noqa: ARG001
    ts = samplers.GRIDS[name](4)
    assert ts.device.type == "cpu"
    assert samplers.grids.at_jumps(samplers.uniform(6), (0.3,)).device.type == "cpu"


@pytest.mark.parametrize("name", ["euler_maruyama", "flow_grpo", "cps", "sde_heun", "churn"])
def test_the_default_device_does_not_move_what_draws_noise(name, elsewhere):  # noqa: ARG001
    assert sample(P.velocity, X, 8, name, seed=0).device.type == "cpu"
    if name in ("flow_grpo", "cps"):
        assert samplers.rollout(P.velocity, X, 8, name, seed=0).log_probs.device.type == "cpu"


def test_the_default_device_does_not_move_rules_or_flow_maps(elsewhere):  # noqa: ARG001
    for rule in (samplers.apg(3.0), samplers.apg(3.0, radius=1.0), samplers.cfg_zero_star(3.0)):
        end = sample(samplers.guide((P.velocity, lambda x, _: -x), rule), X, 4, "euler")
        assert end.device.type == "cpu"
    assert sample(samplers.integrated(P.velocity), X, 4, "jump").device.type == "cpu"


@pytest.mark.parametrize("calls", [4, 6, 16])
def test_a_pilot_and_own_grids_run_beside_another_default_device(calls, elsewhere):  # noqa: ARG001
    assert sample(P.velocity, X, calls, "auto").device.type == "cpu"
    assert len(samplers.pilot(P.velocity, X, calls, looks=12)) > 1


@pytest.mark.parametrize("name", FIXED)
def test_a_velocity_that_writes_into_its_state_is_refused(name):
    def careless(x, t):  # noqa: ARG001
        k = -x
        x.add_(1)
        return k

    with pytest.raises(ValueError, match=r"wrote into its state x.*x.clone"):
        sample(careless, X.clone(), 8, name)


@pytest.mark.parametrize("name", [name for name, one in SOLVERS.items() if not one.maps])
def test_a_velocity_that_writes_into_a_later_state_is_refused(name):
    def careless(x, t):
        if bool((t > 0.4).any()):
            x.mul_(2)
        return -x

    ts = [0, 1] if SOLVERS[name].adaptive else torch.linspace(0, 1, 7)
    with pytest.raises(ValueError, match="wrote into its state x"):
        sample(careless, X.clone(), ts, name)


@pytest.mark.parametrize("way", ["inference", "data", "numpy"])
def test_a_write_that_torch_does_not_count_is_refused_too(way):
    def careless(x, t):  # noqa: ARG001
        k = -x
        (x if way == "inference" else x.data if way == "data" else x.numpy()).__imul__(2)
        return k

    with torch.inference_mode(way == "inference"), pytest.raises(ValueError, match="wrote into"):
        sample(careless, X.clone(), 8, "heun")


def test_a_velocity_elsewhere_or_sparse_is_refused():
    for k, told in ((X.to_sparse(), "sparse_coo on cpu"), (X.to("meta"), "strided on meta")):
        with pytest.raises(ValueError, match=told):
            sample(lambda x, t: k, X, 4)  # noqa: ARG005, B023


@pytest.mark.parametrize("options", [{"rtol": "tight"}, {"atol": None}, {"max_calls": "many"}])
@pytest.mark.parametrize("name", ["dopri5", "dopri5_per_sample"])
def test_tolerances_that_are_no_numbers_are_refused(name, options):
    with pytest.raises((TypeError, ValueError), match="expected"):
        sample(P.velocity, X, [0, 1], name, **options)


@pytest.mark.parametrize("name", FIXED)
def test_a_state_changed_in_place_on_the_way_is_refused(name):
    with pytest.raises(ValueError, match="was changed in place"):
        for t, x in trajectory(P.velocity, X, 8, name):
            if t > 0:
                x.clamp_(-1, 1)


def test_states_without_values_are_walked_for_their_shapes():
    assert sample(lambda x, t: -x * t, torch.empty(2, 3, device="meta"), 6, "auto").is_meta


@pytest.mark.parametrize("calls", [4, 8])
def test_autocast_narrows_the_network_alone(calls):
    x = X.float()
    v = lambda x, t: x.tanh() * t  # noqa: E731 - no product that autocast would narrow
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = sample(v, x, calls, "auto")
    assert torch.equal(inside, sample(v, x, calls, "auto"))


@pytest.mark.parametrize(
    ("v", "ts", "message"),
    [
        ("net", 8, "the velocity is str"),
        (P.velocity, None, "the times are None"),
        (P.velocity, [0, 1j], r"the times are \[0, 1j\]"),
        (P.velocity, object(), "pass a number of evaluations"),
        (P.velocity, 10**9, "at most 1000000"),
    ],
)
def test_what_is_no_velocity_or_no_time_is_refused_in_a_sentence(v, ts, message):
    with pytest.raises((TypeError, ValueError), match=message):
        sample(v, X, ts, SOLVERS["heun"])


@pytest.mark.parametrize("jumps", [0.3, None, ("early",)])
def test_jumps_that_are_no_times_are_refused(jumps):
    v = samplers.batched(lambda x, t: -x * t[:, None])
    v.v.jumps = jumps
    with pytest.raises(TypeError, match="make them a tuple of times"):
        sample(v, X, 8, "auto")


@pytest.mark.parametrize("shift", [0, -1.0, float("nan"), float("inf"), "3", None])
def test_a_time_shift_that_is_no_positive_number_is_refused(shift):
    v = samplers.batched(lambda x, t: -x * t[:, None])
    v.v.time_shift = shift
    with pytest.raises(ValueError, match="make it a positive number"):
        sample(v, X, 8, "auto")


@pytest.mark.parametrize(
    ("state", "message"),
    [(torch.tensor(1.0), "the state is a number"), (X.to_sparse(), "torch.sparse_coo")],
)
def test_a_state_without_a_batch_or_dense_values_is_refused(state, message):
    with pytest.raises(TypeError, match=message):
        sample(lambda x, t: -x, state, 6, "auto")  # noqa: ARG005


def test_times_without_an_order_and_what_is_no_generator_are_refused():
    with pytest.raises(TypeError, match="a list of times"):
        sample(P.velocity, X, {0.0, 0.5, 1.0}, "heun")
    with pytest.raises(TypeError, match="expected a whole number or"):
        sample(P.velocity, X, 8, "sde_heun", generator={7})


@pytest.mark.parametrize(
    "call",
    [
        lambda state: samplers.pilot(P.velocity, state, 6),
        lambda state: samplers.picard(P.velocity, state, 6),
        lambda state: samplers.compare(P.velocity, state, ["heun"], [4]),
        lambda state: samplers.round_trip(P.velocity, state, 6),
        lambda state: samplers.inpaint(P.velocity, state, X, torch.ones(4)),
        lambda state: samplers.log_likelihood(P.velocity, state, 6),
    ],
)
def test_what_takes_one_tensor_refuses_states_of_several(call):
    with pytest.raises(TypeError, match=r"is dict; pass one tensor"):
        call({"a": X})


def test_a_mask_or_noise_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"the mask has shape \(3,\)"):
        samplers.inpaint(P.velocity, X, X, torch.ones(3))
    with pytest.raises(ValueError, match=r"the noise has shape \(2, 4\)"):
        samplers.inpaint(P.velocity, X, X[:2], torch.ones(1, 4))


@pytest.mark.parametrize("rule", ["cfg", "guidance_interval", "cfg_zero_star"])
def test_a_guidance_weight_gets_its_gradient(rule):
    weight = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    other = PROBLEMS["mixture"](dim=4, seed=3).velocity

    def end(w):
        return sample(samplers.guide((P.velocity, other), samplers.RULES[rule](w)), X, 12, "heun")

    (slope,) = torch.autograd.grad(end(weight).sum(), weight)
    beside = [float(end(2.0 + h).sum()) for h in (1e-5, -1e-5)]
    assert float(slope) == pytest.approx((beside[0] - beside[1]) / 2e-5, rel=1e-3)


@pytest.mark.parametrize(
    ("given", "same"),
    [("2.5", 2.5), ("cfg:2.5", 2.5), (np.array(2.5), 2.5), (np.array([1.0, 3.0]), None)],
)
def test_a_rule_may_be_a_text_or_an_array(given, same):
    x, fields = torch.ones(2, 3), (lambda x, _: x, lambda x, _: 0 * x)
    weights = torch.tensor([1.0, 3.0]) if same is None else same
    found, expected = (
        samplers.guide(fields, rule)(x, torch.tensor(0.5)) for rule in (given, weights)
    )
    assert torch.equal(found, expected)
    with pytest.raises(ValueError, match="no guidance rule named 'apk'"):
        samplers.guide(fields, "apk:2")


def test_results_compare_by_identity():
    found = samplers.round_trip(lambda x, _: -x, torch.ones(2, 3), 4)
    assert found == found != copy.deepcopy(found)


def test_the_order_of_keys_and_tuple_or_list_make_no_difference():
    state = {"a": X, "b": (X, 2 * X)}

    def swapped(s, _):
        return {"b": [-s["b"][0], -s["b"][1]], "a": -s["a"]}

    found = sample(swapped, state, 8)
    assert list(found) == ["a", "b"] and isinstance(found["b"], tuple)
    assert torch.equal(found["b"][1], sample(lambda x, _: -x, 2 * X, 8))


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ({"a": X}, "v returned a dict with 'a' where the state is a dict with 'a', 'b'"),
        (X, "v returned a tensor where"),
        ((X, X), "v returned a tuple of 2 where"),
    ],
)
def test_another_structure_than_the_states_is_told_in_words(returned, words):
    with pytest.raises(TypeError, match=words):
        sample(lambda *_: returned, {"a": X, "b": X}, 4)


@pytest.mark.parametrize("returned", [X, X[:2], (X, X, X), None])
def test_a_guided_function_returns_two_predictions(returned):
    with pytest.raises((TypeError, ValueError), match=r"expected the two of|has shape"):
        sample(samplers.guide(lambda *_: returned, 2.0), X, 4)
    both = samplers.guide(lambda x, _: torch.stack([-x, -x]), 2.0)
    assert torch.allclose(sample(both, X, 8), sample(lambda x, _: -x, X, 8))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_nested_tensor_is_refused():
    with pytest.raises(TypeError, match="the state is nested"):
        sample(lambda x, _: -x, torch.nested.nested_tensor([X[0], X[1]]), 4)


def test_functionalize_is_refused_in_a_sentence():
    with pytest.raises(TypeError, match="functionalize hides the numbers of the grid"):
        torch.func.functionalize(lambda x: sample(lambda x, _: -x, x, 4))(X)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda: samplers.count(5),
        lambda: samplers.batched(5),
        lambda: samplers.guide((P.velocity, 5), 2.0),
    ],
)
def test_a_wrapper_around_no_function_is_refused_when_it_is_made(wrap):
    with pytest.raises(TypeError, match="the velocity is int; pass a function"):
        wrap()


def test_times_that_are_complex_are_refused():
    with pytest.raises(TypeError, match="pass a number of evaluations, or a list of times"):
        samplers.sample(P.velocity, X, torch.tensor([0j, 1]))


@pytest.mark.parametrize(
    "ts",
    [
        ["0", "1"],
        [0, 1j],
        np.linspace(0, 1, 5) + 0j,
        torch.zeros(2).to_sparse(),
        torch.zeros(2, device="meta"),
    ],
    ids=str,
)
def test_what_holds_no_real_numbers_is_refused_as_times(ts):
    with pytest.raises(TypeError, match="pass a number of evaluations"):
        sample(P.velocity, X, ts, "heun")


def test_guidance_of_two_inpaintings_keeps_the_data():
    mask = torch.tensor([1.0, 1, 0, 0])
    kept = samplers.inpaint(P.velocity, P.noise(3, seed=5), X, mask)
    end = sample(samplers.guide((kept, kept), 3.0), X, 8, "euler_maruyama")
    assert torch.equal(end[:, 2:], P.noise(3, seed=5)[:, 2:])


def test_guidance_keeps_the_time_shift_of_its_prediction():
    def early(x, t):
        return P.velocity(x, t)

    early.time_shift = 4.0
    assert samplers.guide((early, P.velocity), 2.0).time_shift == 4.0


@pytest.mark.parametrize("uncond", [lambda x: x.sin(), lambda x: x.tanh(), lambda x: 0 * x])
@pytest.mark.parametrize(
    "rule",
    [
        samplers.apg(3.0),
        samplers.apg(3.0, radius=0.5),
        samplers.apg(3.0, momentum=-0.5),
        samplers.cfg_zero_star(3.0, until=0.0),
    ],
)
def test_a_rules_gradient_to_the_state_is_that_of_differences(rule, uncond):
    x = X.clone()
    field = samplers.guide((lambda x, _: x.tanh(), lambda x, _: uncond(x)), rule)

    def end(x):
        return sample(field, x, 4, "euler")

    (slope,) = torch.autograd.grad(end(x.requires_grad_()).sum(), x)
    step = 1e-6 * P.noise(3, seed=1)
    with torch.no_grad():
        change = (end(x + step) - end(x - step)).sum() / 2
    torch.testing.assert_close((slope * step).sum(), change, rtol=1e-5, atol=1e-12)
