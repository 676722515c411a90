"""`seed` is taken wherever `generator` is, begins again with each run, and is each sample's own."""

import inspect
import pickle

import pytest
import torch
from torch.func import jvp, vmap

import samplers
from samplers.editing import flow_edit

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def v(x, _t):
    return torch.sin(x) + 0.1 * x


def gens(*numbers):
    return [torch.Generator().manual_seed(number) for number in numbers]


@pytest.mark.parametrize(
    "name", [n for n, s in samplers.SOLVERS.items() if s.stochastic and not s.maps]
)
def test_a_seed_is_a_generator_of_each_sample_and_begins_again(name):
    solver = samplers.core.find(name, seed=3)
    once, again = (samplers.sample(v, X, 8, pickle.loads(pickle.dumps(solver))) for _ in range(2))
    assert torch.equal(once, again)
    assert torch.equal(once, samplers.sample(v, X, 8, name, generator=gens(3, 4, 5)))
    assert torch.allclose(once[1:], samplers.sample(v, X[1:], 8, name, seed=[4, 5]))


def test_whatever_takes_a_generator_takes_a_seed():
    places = [*samplers.SOLVERS.values(), flow_edit, samplers.log_likelihood]
    for place in places:
        names = inspect.signature(getattr(place, "path", place)).parameters
        assert ("generator" in names) == ("seed" in names), place


@pytest.mark.parametrize(
    "seed, error, why",
    [
        (-1, ValueError, "the seed is -1; expected 0 or more"),
        (2**63, ValueError, "below 2\\^63"),
        (1.5, TypeError, "the seed is 1.5; expected a whole number"),
        (True, TypeError, "the seed is True"),
        ([1, 2], (ValueError, TypeError), "seeds came for 3 samples|the seed is \\[1, 2\\]"),
    ],
)
def test_what_is_no_seed_is_refused_in_a_sentence(seed, error, why):
    runs = (
        lambda: samplers.sample(v, X, 4, "euler_maruyama", seed=seed),
        lambda: flow_edit(v, v, X, 4, seed=seed),
        lambda: samplers.log_likelihood(v, X, 4, probes=2, seed=seed),
    )
    for run in runs:
        with pytest.raises(error, match=why):
            run()


def test_a_seed_beside_a_generator_and_one_of_a_solver_without_noise_are_refused():
    with pytest.raises(ValueError, match="generator and seed both say"):
        samplers.sample(v, X, 4, "churn", seed=1, generator=gens(1)[0])
    with pytest.raises(TypeError, match="heun has no option 'seed'"):
        samplers.sample(v, X, 4, "heun", seed=1)


def test_probes_of_a_likelihood_come_from_a_seed():
    one, two = (samplers.log_likelihood(v, X, 4, probes=2, seed=5) for _ in range(2))
    same = samplers.log_likelihood(v, X, 4, probes=2, generator=gens(5)[0])
    assert torch.equal(one.value, two.value) and torch.equal(one.value, same.value)


def test_likelihoods_inside_of_vmap_and_jvp_are_refused_in_a_sentence():
    with pytest.raises(TypeError, match="vmap and jvp forbid; give it all samples as one batch"):
        vmap(lambda x: samplers.log_likelihood(v, x[None], 4).value)(X)
    with pytest.raises(TypeError, match="vmap and jvp forbid"):
        jvp(lambda x: samplers.log_likelihood(v, x, 4).value, (X,), (X,))


@pytest.mark.parametrize(
    "rule", [2.0, torch.tensor([1.0, 2.0, 3.0]), "cfg_zero_star", "guidance_interval"]
)
def test_a_guided_state_of_several_parts_is_one_vector_per_sample(rule):
    if isinstance(rule, str):
        rule = samplers.RULES[rule](*((3.0, 0.2, 0.8) if rule == "guidance_interval" else (2.0,)))
    state = {"a": X, "b": X[:, :2] + 1}
    packed = torch.cat([X, X[:, :2] + 1], 1)
    guided = samplers.guide((lambda x, t: _each(x, v, t), lambda x, t: _each(x, half, t)), rule)
    run = samplers.sample(guided, state, 8, "heun")
    whole = samplers.sample(samplers.guide((v, half), rule), packed, 8, "heun")
    assert torch.allclose(torch.cat([run["a"], run["b"]], 1), whole, atol=1e-6)
    assert samplers.sample(guided.checked(), state, 8, "heun").keys() == state.keys()


def test_pairs_in_one_batch_take_states_of_several_parts():
    def both(x, _t):
        return tuple(-part for part in x)

    run = samplers.sample(samplers.guide(samplers.guidance.batched_pair(both), 2.0), (X, X), 4)
    assert torch.allclose(run[0], samplers.sample(lambda x, _: -x, X, 4))


def half(x, _t):
    return 0.5 * x


def _each(x, velocity, t):
    return {name: velocity(part, t) for name, part in x.items()}
