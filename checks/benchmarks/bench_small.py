"""Times small parts with pytest-benchmark: `pytest checks/benchmarks/bench_small.py`.

Nothing here passes or fails by a time. `--benchmark-autosave` and `--benchmark-compare` compare two
runs. `janusflow bench speed` compares complete images with the published algorithm.
"""

import pytest
import torch

import samplers
from janusflow import JanusFlowPipeline
from janusflow.scenes.scorer import score
from janusflow.scenes.shapes import render
from janusflow.scenes.world import scene

TEXT = "a red circle left of a blue square"


@pytest.fixture(scope="module")
def pipe():
    made = JanusFlowPipeline.from_pretrained("janusflow/scenes")
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("name", ["euler", "abm", "auto", "unipc3", "rk4"])
def test_a_solver_beside_its_field(benchmark, name):
    x = torch.randn(1, 16, 12, 12, generator=torch.Generator().manual_seed(0))
    benchmark(samplers.sample, lambda x, _: -x, x, 8, name)


def test_a_prompts_keys_and_values(benchmark, pipe):
    benchmark(pipe.encode_prompts, [TEXT])


@pytest.mark.parametrize("weight", [1.0, 2.0])
@torch.no_grad()
def test_a_velocity_with_and_without_guidance(benchmark, pipe, weight):
    field = pipe.field([TEXT], weight)
    noise = pipe.prepare_latents(1, None, None, torch.Generator().manual_seed(0))
    benchmark(field, noise, torch.tensor(0.5, dtype=torch.float64))


def test_decoding_a_image(benchmark, pipe):
    noise = pipe.prepare_latents(1, None, None, torch.Generator().manual_seed(0))
    benchmark(pipe.decode, noise)


def test_a_prompt_in_tokens(benchmark, pipe):
    benchmark(pipe.processor.prompt, [TEXT])


def test_a_drawn_scene(benchmark):
    objects = scene("test", 0).objects
    benchmark(render, objects)


def test_the_score_of_a_image(benchmark):
    drawn = scene("test", 0)
    benchmark(score, render(drawn.objects), drawn.prompt)
