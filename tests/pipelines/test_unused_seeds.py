"""A seed that changes nothing is told, in one sentence that names it."""

import copy
import pickle
import warnings

import pytest
import tiny_pro
import torch

import samplers
from janusflow import JanusFlowPipeline, JanusProPipeline

FEW = dict(num_inference_steps=2, output_type="latent")
HOT = dict(do_sample=True, temperature=3.0, max_new_tokens=4)


@pytest.fixture(scope="module")
def noise(tiny_pipe):
    return tiny_pipe.prepare_latents(1, seed=3)


def told(call) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    return [str(one.message) for one in found if "changes nothing" in str(one.message)]


@pytest.mark.parametrize("given", [dict(seed=1), dict(generator=torch.Generator())])
def test_a_seed_beside_latents_is_told_unless_the_solver_draws(tiny_pipe, noise, given):
    (name,) = given
    (said,) = told(lambda: tiny_pipe("a star", latents=noise, **FEW, **given))
    assert said.startswith(f"{name} changes nothing: latents are the noise, and euler draws none")
    (said,) = told(lambda: tiny_pipe.prepare_latents(1, latents=noise, **given))
    assert said.startswith(f"{name} changes nothing")
    drawing = dict(sampler="euler_maruyama", latents=noise, **FEW)
    one, two = (tiny_pipe("a star", seed=seed, **drawing).images for seed in (1, 2))
    assert not torch.equal(one, two)
    assert not told(lambda: tiny_pipe("a star", **drawing, **given))
    assert not told(lambda: tiny_pipe("a star", **FEW, **given))
    assert not told(lambda: tiny_pipe("a star", latents=noise, **FEW))


def test_a_seed_of_greedy_answers_is_told(tiny_pipe):
    few = dict(max_new_tokens=3)
    talk = tiny_pipe.conversation()
    for ask in (
        lambda **how: tiny_pipe.chat("what?", **few, **how),
        lambda **how: list(tiny_pipe.chat("what?", stream=True, **few, **how)),
        lambda **how: talk.ask("what?", **few, **how),
        lambda **how: list(talk.stream("what?", **few, **how)),
    ):
        (said,) = told(lambda ask=ask: ask(seed=1))
        assert said.startswith("seed changes nothing: answers are greedy")
        assert not told(lambda ask=ask: ask(seed=1, do_sample=True))
        assert not told(ask)


def test_a_seed_of_the_likeliest_tokens_is_told(tmp_path):
    pro = JanusProPipeline.from_pretrained(tiny_pro.write_published(tmp_path, tiny_pro.model()))
    (said,) = told(lambda: pro("a star", temperature=0, seed=1, output_type="latent"))
    assert said.startswith("seed changes nothing: temperature 0")


def test_a_seed_of_an_exact_trace_is_told():
    data = torch.zeros(2, 3)
    (said,) = told(lambda: samplers.log_likelihood(lambda x, _: -x, data, 4, "euler", seed=1))
    assert said.startswith("seed changes nothing: without probes")
    probed = dict(probes=2, seed=1)
    assert not told(lambda: samplers.log_likelihood(lambda x, _: -x, data, 4, "euler", **probed))


def test_a_pickled_conversation_goes_on_alone(tiny_folder):
    talk = JanusFlowPipeline.from_pretrained(tiny_folder).conversation()
    talk.ask("what is it?", max_new_tokens=4)
    again = pickle.loads(pickle.dumps(talk))
    assert again.turns == talk.turns and repr(talk) == "Conversation(0 images, 1 answers)"
    next_one = dict(max_new_tokens=4)
    said = copy.copy(talk).ask("and now?", **next_one)
    assert again.ask("and now?", **next_one) == said == talk.ask("and now?", **next_one)
