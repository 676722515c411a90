"""diffusers' guiders are our rules and our rules its guiders: equal velocities, equal images."""

import pytest
import torch

import samplers

guiders = pytest.importorskip("diffusers.guiders")
from samplers.diffusers.guiders import RuleGuidance, from_guider  # noqa: E402

CASES = {
    "cfg": lambda: guiders.ClassifierFreeGuidance(guidance_scale=3.0),
    "rescale": lambda: guiders.ClassifierFreeGuidance(guidance_scale=3.0, guidance_rescale=0.7),
    "interval": lambda: guiders.ClassifierFreeGuidance(guidance_scale=3.0, start=0.25, stop=0.75),
    "zero star": lambda: guiders.ClassifierFreeZeroStarGuidance(guidance_scale=3.0),
    "momentum": lambda: guiders.AdaptiveProjectedGuidance(
        guidance_scale=3.0, adaptive_projected_guidance_momentum=-0.5
    ),
    "tangential": lambda: guiders.TangentialClassifierFreeGuidance(guidance_scale=3.0),
}


class Field:
    """cond and uncond of a small network, (B, 3, 4, 4), and how often each was asked."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.weights = torch.randn(2, 3, 3, generator=generator)
        self.noise = torch.randn(2, 3, 4, 4, generator=generator)
        self.asked = [0, 0]

    def __call__(self, which, x, t):
        self.asked[which] += 1
        return torch.tanh(torch.einsum("ij,bjhw->bihw", self.weights[which], x)) + (1 - t)

    def pair(self):
        return samplers.guidance.pair(
            lambda x, t: self(0, x, t.to(x.dtype)), lambda x, t: self(1, x, t.to(x.dtype))
        )


def theirs(guider, field, steps=8):
    """diffusers' denoising loop: Euler over sigma, predictions are -v."""
    x, sigmas = field.noise, torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    for i in range(steps):
        guider.set_state(i, steps, 1000 * sigmas[i])
        batches = guider.prepare_inputs({"which": (torch.tensor(0), torch.tensor(1))})
        for batch in batches:
            batch.noise_pred = -field(int(batch.which), x, (1 - sigmas[i]).to(x.dtype))
        x = x + (sigmas[i + 1] - sigmas[i]).to(x.dtype) * guider(batches).pred
    return x


def ours(rule, field, steps=8):
    times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return samplers.sample(samplers.guide(field.pair(), rule), field.noise, times, "euler")


@pytest.mark.parametrize("name", CASES)
def test_a_guider_of_diffusers_makes_the_same_image_as_a_rule(name):
    mine, other = Field(), Field()
    expected = theirs(CASES[name](), other)
    found = ours(from_guider(CASES[name]()), mine)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    if name == "interval":
        assert mine.asked == other.asked == [8, 4]


@pytest.mark.parametrize("rule", ["cfg:3", "cfg_rescale:3,0.7", "apg:3", "cfg:1"])
def test_a_rule_makes_the_same_image_as_a_guider(rule):
    mine, other = Field(), Field()
    expected = ours(samplers.guidance.parse(rule), mine)
    found = theirs(RuleGuidance(rule), other)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert mine.asked == other.asked


def test_a_rule_is_read_at_its_own_time():
    rule = "guidance_interval:3,0,0.45"
    torch.testing.assert_close(
        theirs(RuleGuidance(rule), Field(), steps=10),
        ours(samplers.guidance.parse(rule), Field(), steps=10),
        rtol=1e-5,
        atol=1e-5,
    )


def test_both_ways_give_back_the_same_rule():
    again = from_guider(RuleGuidance("cfg:3"))
    torch.testing.assert_close(ours(again, Field()), ours(3.0, Field()), rtol=1e-5, atol=1e-5)


def test_momentum_does_not_reach_the_next_image():
    rule = from_guider(CASES["momentum"]())
    assert torch.equal(ours(rule, Field()), ours(rule, Field()))


def test_a_written_rule_is_saved_with_its_configuration(tmp_path):
    RuleGuidance("cfg:3", stop=0.5).save_pretrained(tmp_path)
    again = RuleGuidance.from_pretrained(tmp_path)
    assert again.config.rule == "cfg:3" and again.config.stop == 0.5


def test_a_guider_of_other_predictions_is_refused_by_name():
    with pytest.raises(ValueError, match=r"SkipLayerGuidance needs pred_cond.*such as"):
        from_guider(guiders.SkipLayerGuidance(skip_layer_guidance_layers=[0]))


def test_a_rule_that_needs_the_grid_is_refused():
    with pytest.raises(ValueError, match="depends on the time grid"):
        RuleGuidance(samplers.guidance.cfg_zero_star(3.0))


def test_a_batch_at_several_times_is_refused():
    rule = from_guider(CASES["cfg"]())
    with pytest.raises(ValueError, match="different times"):
        rule(torch.ones(2, 1), torch.zeros(2, 1), torch.tensor([0.1, 0.5]))
