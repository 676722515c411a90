"""Objects that people hand to other processes pickle and copy, and what returns does the same."""

import copy
import pickle

import pytest
import torch

import samplers
from janusflow.pipelines.presets import resolve
from janusflow.training import config
from janusflow.training.recipes import RECIPES

WAYS = {"pickle": lambda one: pickle.loads(pickle.dumps(one)), "deepcopy": copy.deepcopy}
NOISE = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)
LAST = torch.ones(1, 3, dtype=torch.float64)


def decay(x, t):
    return -x * (1 + t)


def drift(x, t, s):
    return -x * (1 + t + s)


FIELDS = {
    "integrated": lambda: samplers.integrated(decay, 8),
    "flow map": lambda: samplers.flow_map(drift),
    "guided": lambda: samplers.guide((decay, drop), "apg:2"),
    "guided at once": lambda: samplers.guide(samplers.batched_pair(decay), 2.0),
    "counted": lambda: samplers.count(decay),
    "posterior": lambda: samplers.posterior(decay, LAST, torch.zeros(2, 1), 0.1),
    "controlled": lambda: samplers.controlled(decay, NOISE, 0.5),
    "inpainting": lambda: samplers.inpaint(decay, NOISE, NOISE, torch.ones(2, 3)),
}
OTHERS = {
    "solver": lambda: samplers.SOLVERS["cps"].with_options(strength=0.3),
    "solvers": lambda: samplers.SOLVERS,
    "grids": lambda: samplers.GRIDS,
    "rules": lambda: samplers.RULES,
    "rule": lambda: samplers.guidance_interval(samplers.cfg(2), 0.1, 0.9),
    "comparison": lambda: samplers.compare(decay, NOISE, ["euler", "heun"], [4]),
    "pilot": lambda: samplers.pilot(decay, NOISE, 4, "euler", looks=4),
    "preset": lambda: resolve("fast"),
    "recipe": lambda: RECIPES["scenes-pico"],
    "settings": lambda: config.of_stage("tune"),
}


def drop(x, t):
    return x * t


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", FIELDS.values(), ids=FIELDS)
def test_a_field_comes_back_as_the_same_function(make, way):
    field = make()
    again = WAYS[way](field)
    assert torch.equal(samplers.sample(again, NOISE, 4), samplers.sample(field, NOISE, 4))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", samplers.PROBLEMS)
def test_a_field_with_a_known_end_comes_back(name, way):
    problem = samplers.PROBLEMS[name]()
    again, noise = WAYS[way](problem), problem.noise(2)
    half = torch.tensor(0.5, dtype=torch.float64)
    assert torch.equal(again.velocity(noise, half), problem.velocity(noise, half))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_settings_and_results_come_back_equal(make, way):
    one = make()
    again = WAYS[way](one)
    assert type(again) is type(one) and repr(again) == repr(one)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "part", ["model", "processor", "vae", "model.config", "processor.image_processor", "grids"]
)
def test_the_parts_of_a_pipeline_come_back(tiny_pipe, part, way):
    one = tiny_pipe
    for name in part.split("."):
        one = getattr(one, name)
    assert repr(WAYS[way](one)) == repr(one)


@pytest.mark.parametrize("way", WAYS)
def test_a_model_whose_hidden_states_were_read_comes_back_and_reads_them_again(tiny_pipe, way):
    asked, model = tiny_pipe.processor("what is it?"), copy.deepcopy(tiny_pipe.model)
    read = dict(**asked, output_hidden_states=True)
    before = model(**read).hidden_states
    again = WAYS[way](model)
    for other in (again, model):
        after = other(**read).hidden_states
        assert len(after) == len(before) and all(map(torch.equal, after, before))


@pytest.mark.parametrize("way", WAYS)
def test_a_result_and_a_conversation_come_back(tiny_pipe, way):
    out = tiny_pipe("a red circle", num_inference_steps=1, seed=1)
    again = WAYS[way]((out, tiny_pipe.conversation(out.images)))
    assert again[0].images[0].tobytes() == out.images[0].tobytes()
    assert repr(again[1]) == repr(tiny_pipe.conversation(out.images))
