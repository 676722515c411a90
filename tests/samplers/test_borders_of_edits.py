"""What edits, sweeps, flow maps, comparisons and pilots refuse, as `sample` does."""

import pytest
import torch

import samplers
from samplers.benchmark.problems import normal

X = normal(4, 3, seed=0)


def v(x, t):  # noqa: ARG001
    return -x


def edited(source=v, target=v, data=X, ts=4, **options):
    return samplers.flow_edit(source, target, data, ts, seed=0, **options)


def jumped(y):
    u = samplers.flow_map(lambda x, t, s: y(x), output="state")  # noqa: ARG005
    return samplers.sample(u, X, 4, "jump")


WRONG = {
    "edit shape": (lambda: edited(lambda x, _: x[:1]), r"has shape \(1, 3\)"),
    "edit NaN": (lambda: edited(target=lambda x, _: x * torch.nan), "was not finite at t = 0"),
    "edit in place": (lambda: edited(lambda x, _: x.neg_()), "wrote into its state"),
    "edit complex": (lambda: edited(lambda x, _: x + 1j), "return its real part"),
    "edit None": (lambda: edited(target=None), "the velocity is NoneType"),
    "edit batched": (lambda: edited(lambda x, t: x * t[:, None]), r"samplers\.batched"),
    "edit integers": (lambda: edited(data=X.long()), "pass floating-point"),
    "edit averages": (lambda: edited(averages=0), "averages is 0; expected a whole number"),
    "edit backwards": (lambda: edited(ts=[1, 0.5, 0]), "the grid of an edit falls"),
    "sweep NaN": (lambda: samplers.picard(lambda x, _: x * torch.nan, X, 4), "not finite"),
    "sweep number": (lambda: samplers.picard(v, X[0, 0], 4), "the state is a number"),
    "sweep tolerance": (lambda: samplers.picard(v, X, 4, tolerance="a"), "tolerance is 'a'"),
    "map None": (lambda: jumped(lambda x: None), "returned NoneType"),  # noqa: ARG005
    "map shape": (lambda: jumped(lambda x: x[:1]), r"has shape \(1, 3\)"),
    "reference": (lambda: samplers.compare(v, X, reference=X[:1]), r"reference has shape \(1, 3"),
    "pilot": (lambda: samplers.pilot(v, X, 0), "calls is 0; expected a whole number"),
    "times": (lambda: samplers.interpolate(X, X, torch.ones(2)), "2 times came for 4 samples"),
    "strength": (lambda: samplers.controlled(v, X, "a"), "strength of a control is 'a'"),
    "density": (lambda: samplers.step_log_prob(X, X[:1], X, 0.1, 0.2), "y has shape"),
}


A = torch.eye(3, dtype=X.dtype)[:2]


def measured(v, x=X, ts=4, solver="euler", seen=X[:, :2], matrix=A, deviation=0.1):
    return samplers.sample(samplers.posterior(v, matrix, seen, deviation), x, ts, solver)


def guided(uncond):
    return samplers.sample(samplers.guide((v, uncond), 3.0), X, 4, "euler")


WRONG |= {
    "posterior detached": (lambda: measured(torch.no_grad()(v)), "carries no gradient to x"),
    "posterior None": (lambda: measured(lambda x, _: None), "returned NoneType"),  # noqa: ARG005
    "posterior batched": (lambda: measured(lambda x, t: x * t[:, None]), r"samplers\.batched"),
    "posterior measured": (lambda: measured(v, seen=X), r"measured has shape \(4, 3\)"),
    "posterior deviation": (lambda: measured(v, deviation="a"), "deviation is 'a'"),
    "posterior per sample": (
        lambda: measured(v, ts=[0, 1], solver="dopri5_per_sample"),
        "one time for the batch",
    ),
    "guided shape": (lambda: guided(lambda x, _: x[:1]), r"has shape \(1, 3\)"),
    "guided None": (lambda: guided(lambda x, _: None), "returned NoneType"),  # noqa: ARG005
    "fitted reference": (lambda: samplers.fit_times(v, X, 4, reference=X[:1]), "reference has"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_would_be_another_result_in_silence_is_refused(case):
    call, told = WRONG[case]
    with pytest.raises((TypeError, ValueError, FloatingPointError), match=told):
        call()


def test_each_sample_may_have_its_own_time_on_the_straight_path():
    t = torch.tensor([0.0, 0.2, 0.5, 1.0], dtype=X.dtype)
    square, noise = normal(4, 4, seed=1), normal(4, 4, seed=2)
    expected = torch.stack([(1 - s) * n + s * d for s, d, n in zip(t, square, noise, strict=True)])
    torch.testing.assert_close(samplers.interpolate(square, noise, t), expected)


def test_a_posterior_runs_in_inference_mode():
    with torch.inference_mode():
        inside = measured(v, X.clone())
    torch.testing.assert_close(inside.clone(), measured(v))


def test_an_empty_batch_makes_no_call():
    none = X[:0]
    assert samplers.picard(v, none, 4).shape == none.shape
    assert samplers.round_trip(v, none, 4).error.shape == (0,)


def test_a_flow_map_of_states_takes_several_parts():
    u = samplers.flow_map(lambda x, t, s: {"a": x["a"] + (s - t)}, output="state")
    end = samplers.sample(u, {"a": X}, 4, "jump")
    torch.testing.assert_close(end["a"], X + 1)


def test_more_states_than_the_data_of_an_edit_are_refused():
    data, mask, more = torch.zeros(4, 2), torch.ones(4, 2), torch.randn(3, 2)
    fields = (
        samplers.inpaint(lambda x, _t: -x, data, data, mask),
        samplers.controlled(lambda x, _t: -x, data, 0.5),
    )
    for field in fields:
        with pytest.raises(ValueError, match=r"state has shape \(3, 2\)"):
            samplers.sample(field, more, 4)
