import math
import pickle
from itertools import pairwise

import pytest
import torch

import samplers
from samplers import guidance, sample
from samplers.guidance import (
    RULES,
    Pair,
    apg,
    autoguidance,
    batched_pair,
    cfg,
    cfg_plus_plus,
    cfg_rescale,
    cfg_zero_star,
    guidance_interval,
    guide,
    pair,
    parse,
    rule,
)

TIMES = [0.0, 0.02, 0.3, 0.55, 1.0]
SHAPES = [(3,), (1, 5), (3, 4, 6, 6), (2, 3, 2, 4, 4)]


def at(t):
    return torch.tensor(t, dtype=torch.float64)


def predictions(shape=(3, 4, 6, 6), seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2)]


def constant(value):
    """A velocity that notes the times of its calls."""

    def v(_, t):
        v.times.append(float(t))
        return value

    v.times = []
    return v


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("name", sorted(set(RULES) - {"cfg++"}))  # whose weights are not w itself
def test_scale_one_changes_no_bit(name, t):
    cond, uncond = predictions()
    assert torch.equal(RULES[name](1.0)(cond, uncond, at(t)), cond)
    assert torch.equal(RULES[name](torch.ones(3))(cond, uncond, at(t)), cond)


@pytest.mark.parametrize("name", RULES)
def test_equal_predictions_need_no_guidance(name):
    cond, _ = predictions(dtype=torch.float64)
    made = RULES[name](3.0)
    torch.testing.assert_close(made(cond, cond, at(0.4)), cond)


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("name", RULES)
def test_skipping_evaluations_gives_what_the_rule_gives(name, t):
    cond, uncond = predictions()
    for weight in (1.0, 2.5):
        made = RULES[name](weight)
        guided = guide((constant(cond), constant(uncond)), made)
        assert torch.equal(guided(torch.zeros_like(cond), at(t)), made(cond, uncond, at(t)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", RULES)
def test_a_sample_does_not_see_its_neighbours(name, shape):
    cond, uncond = predictions(shape, dtype=torch.float64)
    together = RULES[name](2.5)(cond, uncond, at(0.3))
    for i in range(len(cond)):
        alone = RULES[name](2.5)(cond[i : i + 1], uncond[i : i + 1], at(0.3))
        torch.testing.assert_close(together[i : i + 1], alone)


@pytest.mark.parametrize("name", sorted(set(RULES) - {"cfg++"}))
def test_each_sample_may_have_its_own_weight(name):
    cond, uncond = predictions(dtype=torch.float64)
    weights = torch.tensor([1.0, 2.0, 4.5])
    together = RULES[name](weights)(cond, uncond, at(0.3))
    for i, weight in enumerate(weights):
        alone = RULES[name](float(weight))(cond[i : i + 1], uncond[i : i + 1], at(0.3))
        torch.testing.assert_close(together[i : i + 1], alone)


@pytest.mark.parametrize("name", RULES)
def test_each_sample_may_have_its_own_time(name):
    cond, uncond = predictions(dtype=torch.float64)
    times = torch.tensor([0.01, 0.5, 0.95], dtype=torch.float64)
    made = RULES[name](2.5)
    together = guide((lambda *_: cond, lambda *_: uncond), made)(cond, times.view(3, 1, 1, 1))
    for i, t in enumerate(times):
        alone = made(cond[i : i + 1], uncond[i : i + 1], t)
        torch.testing.assert_close(together[i : i + 1], alone)


def test_cfg_extrapolates_from_uncond_through_cond():
    cond, uncond = predictions(dtype=torch.float64)
    expected = uncond + 2.5 * (cond - uncond)
    torch.testing.assert_close(cfg(2.5)(cond, uncond, at(0.2)), expected)
    torch.testing.assert_close(autoguidance(2.5)(cond, uncond, at(0.2)), expected)


def test_a_weight_may_be_a_function_of_time():
    cond, uncond = predictions(dtype=torch.float64)
    ramp = cfg(lambda t: 1 + 3 * t)
    for t in TIMES:
        torch.testing.assert_close(
            ramp(cond, uncond, at(t)), uncond + (1 + 3 * t) * (cond - uncond)
        )
    assert ramp.reads(at(0.0)) == 1 and ramp.reads(at(0.5)) == 2


def test_within_evaluates_the_second_prediction_only_inside():
    cond, uncond = (constant(p) for p in predictions())
    guided = guide((cond, uncond), guidance_interval(cfg(2.0), 0.2, 0.6))
    for t in (0.0, 0.2, 0.4, 0.6, 0.8):
        guided(torch.zeros(3, 4, 6, 6), at(t))
    assert cond.times == [0.0, 0.2, 0.4, 0.6, 0.8]
    assert uncond.times == [0.2, 0.4, 0.6]
    assert guided.calls == 8
    assert [guided.cost(at(t)) for t in (0.0, 0.2, 0.8)] == [1, 2, 1]


def test_rescaling_fully_restores_the_deviation_of_cond():
    cond, uncond = predictions(dtype=torch.float64)
    full = cfg_rescale(4.0, 1.0)(cond, uncond, at(0.5))
    torch.testing.assert_close(full.flatten(1).std(1), cond.flatten(1).std(1))
    torch.testing.assert_close(
        cfg_rescale(4.0, 0.0)(cond, uncond, at(0.5)), cfg(4.0)(cond, uncond, at(0.5))
    )
    half = cfg_rescale(4.0, 0.5)(cond, uncond, at(0.5))
    torch.testing.assert_close(half, (full + cfg(4.0)(cond, uncond, at(0.5))) / 2)


def test_zero_star_ignores_the_length_of_uncond():
    cond, uncond = predictions(dtype=torch.float64)
    made = cfg_zero_star(3.0)
    torch.testing.assert_close(
        made(cond, uncond, at(0.5)),
        made(cond, uncond * torch.tensor([-2.0, 0.1, 7.0]).view(3, 1, 1, 1), at(0.5)),
    )


def test_zero_star_moves_from_the_closest_multiple_of_uncond():
    cond, uncond = predictions(dtype=torch.float64)
    start = cfg_zero_star(0.0)(cond, uncond, at(0.5))
    remainder = ((cond - start) * uncond).flatten(1).sum(1)
    torch.testing.assert_close(remainder, torch.zeros_like(remainder))


def test_zero_star_stands_still_at_first_and_evaluates_nothing():
    cond, uncond = (constant(p) for p in predictions())
    guided = guide((cond, uncond), cfg_zero_star(3.0, until=0.1))
    x = torch.randn(3, 4, 6, 6)
    assert torch.equal(guided(x, at(0.0)), torch.zeros_like(x)) and guided.cost(at(0.0)) == 0
    guided(x, at(0.1))
    assert cond.times == uncond.times == [0.1]


def test_projection_leaves_the_component_along_cond_alone():
    cond, uncond = predictions(dtype=torch.float64)
    change = apg(5.0)(cond, uncond, at(0.5)) - cond
    along = (change * cond).flatten(1).sum(1)
    torch.testing.assert_close(along, torch.zeros_like(along), atol=1e-12, rtol=0)
    everything = apg(5.0, parallel=1.0)(cond, uncond, at(0.5))
    torch.testing.assert_close(everything, cfg(5.0)(cond, uncond, at(0.5)))


def test_projection_keeps_the_difference_within_its_radius():
    cond, uncond = predictions(dtype=torch.float64)
    change = apg(2.0, parallel=1.0, radius=0.7)(cond, uncond, at(0.5)) - cond
    torch.testing.assert_close(change.flatten(1).norm(dim=1), torch.full((3,), 0.7).double())


@pytest.mark.parametrize("grid", [10, torch.tensor([0.0, 0.1, 0.35, 0.4, 1.0]).double()])
def test_cfg_plus_plus_is_renoising_with_the_unconditional_noise(grid):
    cond, uncond = predictions(dtype=torch.float64)
    x = torch.randn(3, 4, 6, 6, dtype=torch.float64)
    ts = torch.linspace(0, 1, 11, dtype=torch.float64) if isinstance(grid, int) else grid
    guided = guide((constant(cond), constant(uncond)), cfg_plus_plus(0.6, grid))
    for t, s in pairwise(ts):
        data = x + (1 - t) * (uncond + 0.6 * (cond - uncond))
        renoised = s * data + (1 - s) * (x - t * uncond)
        torch.testing.assert_close(x + (s - t) * guided(x, t), renoised)


def test_an_unguided_field_costs_one_evaluation():
    cond, uncond = (constant(p) for p in predictions())
    guided = guide((cond, uncond), 1.0)
    guided(torch.zeros(3, 4, 6, 6), at(0.5))
    assert cond.times == [0.5] and uncond.times == [] and guided.cost(at(0.5)) == 1
    assert guide((cond, uncond), 2.0).cost(at(0.5)) == 2


def test_a_pair_without_cond_alone_is_counted_honestly():
    cond, uncond = predictions()
    guided = guide(lambda *_: (cond, uncond), 1.0)
    assert torch.equal(guided(torch.zeros_like(cond), at(0.5)), cond)
    assert guided.cost(at(0.5)) == 2


def test_guided_fields_can_be_guided_again_and_the_cost_adds_up():
    cond, uncond = predictions()
    strong = guide((constant(cond), constant(uncond)), guidance_interval(2.0, 0.2, 0.8))
    twice = guide((strong, constant(uncond)), autoguidance(1.5))
    assert [twice.cost(at(t)) for t in (0.0, 0.5)] == [2, 3]


def test_one_stacked_call_equals_two():
    rows = torch.tensor([2.0, -1.0]).repeat_interleave(3).view(6, 1, 1, 1)

    def both(x, t):
        return rows * x + t

    x = torch.randn(3, 4, 6, 6)
    one = guide(batched_pair(both), 3.0)(x, at(0.5))
    two = guide(pair(lambda x, t: 2 * x + t, lambda x, t: -x + t), 3.0)(x, at(0.5))
    torch.testing.assert_close(one, two)
    times = torch.rand(3, 1, 1, 1)
    torch.testing.assert_close(
        guide(batched_pair(both), 3.0)(x, times),
        guide(pair(lambda x, t: 2 * x + t, lambda x, t: -x + t), 3.0)(x, times),
    )


def test_narrow_predictions_are_combined_in_the_dtype_of_the_state():
    cond, uncond = (p.bfloat16() for p in predictions())
    guided = guide(Pair(lambda *_: (cond, uncond)), 7.0)(torch.zeros(3, 4, 6, 6), at(0.5))
    expected = uncond.float() + 7 * (cond.float() - uncond.float())
    assert guided.dtype == torch.float32
    torch.testing.assert_close(guided, expected)


@pytest.mark.parametrize("name", RULES)
def test_nothing_is_written_into_the_predictions(name):
    cond, uncond = predictions()
    kept = cond.clone(), uncond.clone()
    RULES[name](3.0)(cond, uncond, at(0.5))
    assert torch.equal(cond, kept[0]) and torch.equal(uncond, kept[1])


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf, "2", None, True])
def test_a_weight_that_is_not_a_finite_number_is_refused(name, weight):
    with pytest.raises((ValueError, TypeError), match="guidance weight"):
        RULES[name](weight)


def test_weights_that_do_not_fit_are_refused():
    cond, uncond = predictions()
    with pytest.raises(ValueError, match="hold NaN"):
        cfg(torch.tensor([1.0, math.nan]))
    with pytest.raises(ValueError, match="2 guidance weights for 3 samples"):
        cfg(torch.tensor([1.0, 2.0]))(cond, uncond, at(0.5))
    with pytest.raises(ValueError, match="not finite"):
        cfg(lambda t: 1 / (t - t))(cond, uncond, at(0.5))


@pytest.mark.parametrize(
    "make",
    [
        lambda: guidance_interval(2.0, 0.8, 0.2),
        lambda: cfg_rescale(2.0, 1.5),
        lambda: apg(2.0, radius=0.0),
        lambda: cfg_plus_plus(0.5, torch.tensor([0.0, 0.5, 0.4, 1.0])),
        lambda: cfg_plus_plus(0.5, 0),
    ],
)
def test_options_out_of_range_are_refused(make):
    with pytest.raises(ValueError):
        make()


def test_rules_are_read_from_text():
    cond, uncond = predictions()
    for text, expected in {
        "cfg:2.5": cfg(2.5),
        "guidance_interval:4,0.1,0.9": guidance_interval(4.0, 0.1, 0.9),
    }.items():
        for t in TIMES:
            assert torch.equal(parse(text)(cond, uncond, at(t)), expected(cond, uncond, at(t)))
    with pytest.raises(ValueError, match="choose one of cfg"):
        parse("cgf:2")
    for text in ("cfg", "cfg:two", "cfg:nan", "cfg:1,2,3"):
        with pytest.raises(ValueError, match="for example cfg:2"):
            parse(text)


def test_a_new_rule_is_one_function():
    @rule
    def sharpened(weight):
        return lambda cond, uncond, t: cond + weight * (1 - float(t)) * (cond - uncond)

    cond, uncond = predictions()
    made = guidance_interval(parse("sharpened:2"), 0.0, 0.5)
    del RULES["sharpened"]
    guided = guide((constant(cond), constant(uncond)), made)
    torch.testing.assert_close(guided(cond, at(0.5)), 2 * cond - uncond)
    assert guided.cost(at(0.5)) == 2 and guided.cost(at(0.6)) == 1


def test_cfg_plus_plus_takes_the_steps_of_the_run():
    """Its definition, step by step, on a grid that it was not told of."""
    cond, uncond = predictions(dtype=torch.float64)
    x = torch.zeros_like(cond)
    ts = torch.tensor([0.0, 0.1, 0.4, 1.0], dtype=torch.float64)
    guided = guide((constant(cond), constant(uncond)), cfg_plus_plus(0.6))
    end = sample(guided, x, ts, "euler")
    for t, s in pairwise(ts):
        data = x + (1 - t) * torch.lerp(uncond, cond, 0.6)
        x = s * data + (1 - s) * (x - t * uncond)
    torch.testing.assert_close(end, x)
    assert guided.calls == 6


@pytest.mark.parametrize(("steps", "still"), [(50, 2), (28, 1), (100, 4)])
def test_the_standstill_of_zero_star_is_a_share_of_the_steps(steps, still):
    """Also where the steps are short at first."""
    cond, uncond = constant(torch.ones(1, 2)), constant(torch.zeros(1, 2))
    ts = torch.linspace(0, 1, steps + 1, dtype=torch.float64) ** 1.5
    sample(guide((cond, uncond), cfg_zero_star(3.0)), torch.zeros(1, 2), ts, "euler")
    assert len(cond.times) == steps - still


def test_momentum_adds_the_differences_of_the_calls_before():
    cond, uncond = predictions(dtype=torch.float64)
    ts = torch.linspace(0, 1, 4, dtype=torch.float64)
    field = guide((constant(cond), constant(uncond)), apg(2.0, parallel=1.0, momentum=-0.5))
    end, d, x = sample(field, torch.zeros_like(cond), ts, "euler"), 0, torch.zeros_like(cond)
    for _ in range(3):
        d = cond - uncond - 0.5 * d
        x = x + (cond + d) / 3
    torch.testing.assert_close(end, x)
    torch.testing.assert_close(sample(field, torch.zeros_like(cond), ts, "euler"), end)
    with pytest.raises(ValueError, match="evaluations of a run"):
        field(cond, at(0.5))


def test_a_rule_prints_and_pickles_as_written():
    made = guidance_interval(cfg(4.0), 0.1, stop=0.8)
    assert repr(made) == "guidance_interval(cfg(4.0), 0.1, stop=0.8)"
    assert repr(pickle.loads(pickle.dumps(made))) == repr(made)
    assert "guidance_interval" in repr(RULES) and "<table>" in RULES._repr_html_()


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)

    def forward(self, x, t):
        return self.layer(torch.cat([x, t[:, None]], 1))


@pytest.mark.parametrize("made", [3.0, guidance_interval(4.0, 0.1, 0.6), apg(3.0)])
def test_a_field_guided_by_two_networks_pickles(made):
    field = guide((samplers.batched(Net()), samplers.batched(Net())), made)
    again, noise = pickle.loads(pickle.dumps(field)), torch.randn(4, 2)
    assert torch.equal(sample(again, noise, 6), sample(field, noise, 6))
    assert again.calls == field.calls and again.jumps == field.jumps


@pytest.mark.parametrize("old", ["within", "rescaled", "zero_star", "projected"])
def test_names_of_the_last_release_warn(old):
    new = guidance.OLD[old]
    with pytest.warns(DeprecationWarning, match=new):
        assert parse(f"{old}:3").written[0] == new
    with pytest.warns(DeprecationWarning, match=new):
        assert getattr(samplers, old) is RULES[new]
    with pytest.warns(DeprecationWarning, match=new):
        assert getattr(guidance, old) is RULES[new]


def test_projection_of_data_predictions_leaves_the_guided_data_across_the_prompts():
    """D = x + (1 - t) v: what guidance adds to D is orthogonal to it, and at weight 1 nothing."""
    cond, uncond = predictions(dtype=torch.float64)
    x, t = torch.randn(cond.shape, generator=torch.Generator().manual_seed(5)).double(), at(0.3)
    rule = apg(5.0, of_data=True, radius=2.0)
    change = (1 - t) * (rule(cond, uncond, t, x) - cond) / 4
    along = (change * (x + (1 - t) * cond)).flatten(1).sum(1)
    torch.testing.assert_close(along, torch.zeros_like(along), atol=1e-12, rtol=0)
    assert (change.flatten(1).norm(dim=1) <= 2.0).all()
    field = guide((constant(cond), constant(uncond)), guidance_interval(rule, 0.2, 0.8))
    torch.testing.assert_close(field(x, t), rule(cond, uncond, t, x))
    with pytest.raises(ValueError, match="needs the state"):
        rule(cond, uncond, t)
