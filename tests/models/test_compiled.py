"""Compiled velocities equal the eager ones, and a shape compiles once."""

import pytest
import torch

from janusflow import JanusFlowPipeline
from janusflow.models.janusflow.compiled_velocity import bucket

TEXTS = ["a red circle", "three yellow hearts and a pink ring left of a black cross"]


def run(pipe, text, sampler="euler", steps=2, **kwargs):
    generator = torch.Generator().manual_seed(0)
    return pipe(
        text,
        sampler=sampler,
        num_inference_steps=steps,
        generator=generator,
        output_type="latent",
        **kwargs,
    ).images


@pytest.fixture
def fresh(tiny_folder):
    """A pipeline of its own, and nothing compiled before."""
    torch.compiler.reset()
    pipe = JanusFlowPipeline.from_pretrained(tiny_folder)
    pipe.set_progress_bar_config(disable=True)
    yield pipe
    torch.compiler.reset()


def test_buckets_hold_their_prompts_and_are_few():
    assert all(bucket(n) >= n for n in range(1, 1000))
    assert {bucket(n) for n in range(1, 513)} == {32, 64, 128, 256, 512}


def test_steps_solvers_and_prompts_of_a_bucket_share_one_graph(fresh):
    from torch._dynamo.utils import counters

    expected = [run(fresh, text, solver) for text in TEXTS for solver in ("euler", "heun")]
    fresh.compile(backend="eager")  # what is traced, without the minutes of a compiler
    counters.clear()
    run(fresh, "a star")
    with torch._dynamo.config.patch(error_on_recompile=True):
        found = [run(fresh, text, solver) for text in TEXTS for solver in ("euler", "heun")]
        run(fresh, "a star", "abm", 5)
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= 1e-4 * b.abs().max()


def test_another_number_of_rows_compiles_once_more(fresh):
    from torch._dynamo.utils import counters

    fresh.compile(backend="eager")
    counters.clear()
    for _ in range(2):
        run(fresh, "a star")
        run(fresh, "a star", guidance_scale=1.0)
    assert counters["stats"]["unique_graphs"] == 2


def test_reuse_and_compile_are_refused_together(fresh):
    with pytest.raises(ValueError, match="leave out first_block_cache or compile"):
        run(fresh.compile(), "a star", reuse=0.1)


@pytest.mark.slow
def test_the_default_compiler_gives_the_eager_picture(fresh):
    expected = run(fresh, TEXTS[0])
    found = run(fresh.compile(), TEXTS[0])
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
