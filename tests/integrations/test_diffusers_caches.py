"""diffusers' caches skip our blocks, and skip nothing else."""

import numpy as np
import pytest
import torch

from janusflow.models.janusflow.modeling import JanusFlowModel

hooks = pytest.importorskip("diffusers.hooks")
from janusflow.integrations.diffusers_caches import cached  # noqa: E402

ALWAYS, NEVER = hooks.FirstBlockCacheConfig(1e9), hooks.FirstBlockCacheConfig(0.0)


def image(pipe, **settings):
    return np.asarray(pipe("a red circle", num_inference_steps=4, seed=0, **settings).images[0])


def blocks_run(pipe, make):
    """How often the second block ran."""
    runs, block = [], pipe.model.language_model.model.layers[1]
    watch = block.mlp.register_forward_hook(lambda *_: runs.append(1))
    try:
        make()
    finally:
        watch.remove()
    return len(runs)


def test_a_cache_that_never_skips_changes_no_bit(tiny_pipe):
    plain = image(tiny_pipe)
    with cached(tiny_pipe, NEVER):
        assert np.array_equal(image(tiny_pipe), plain)
    assert np.array_equal(image(tiny_pipe), plain)


def test_a_cache_that_skips_runs_the_other_blocks_once_an_image(tiny_pipe):
    full = blocks_run(tiny_pipe, lambda: image(tiny_pipe))
    with cached(tiny_pipe, ALWAYS):
        short = blocks_run(tiny_pipe, lambda: image(tiny_pipe))
        first, second = image(tiny_pipe), image(tiny_pipe)
    assert full - short == 3
    assert np.array_equal(first, second), "the second image took what the first one left"


def test_what_is_skipped_is_the_first_blocks_output_and_the_last_residual(tiny_pipe):
    """diffusers' rule, by hand: h = first(x2) + (last(x1) - first(x1))."""
    model: JanusFlowModel = tiny_pipe.model
    decoder = model.language_model.model
    rows = tiny_pipe.processor.prompt(["a red circle"])
    noise = tiny_pipe.prepare_latents(1, None, None, torch.Generator().manual_seed(0))
    with torch.no_grad(), cached(tiny_pipe, ALWAYS):
        prompt = model.encode_prompt(rows["input_ids"], rows["attention_mask"])
        model.velocity(noise, torch.tensor([0.0]), prompt)
        found = model.velocity(0.5 * noise, torch.tensor([0.5]), prompt)
    with torch.no_grad():
        prompt = model.encode_prompt(rows["input_ids"], rows["attention_mask"])
        _, _, x1 = model.enter(noise, torch.tensor([0.0]))
        features, times, x2 = model.enter(0.5 * noise, torch.tensor([0.5]))
        size = tuple(features.shape[2:])
        head1, head2 = (model.through(decoder.layers[:1], prompt, x, size) for x in (x1, x2))
        last = model.through(decoder.layers[1:], prompt, head1, size)
        due = model.leave(decoder.norm(head2 + (last - head1)), features, times)
    torch.testing.assert_close(found, due, rtol=1e-5, atol=1e-5)


def test_answers_and_prompts_are_never_skipped(tiny_pipe):
    picture = tiny_pipe("a star", num_inference_steps=1, seed=0).images
    plain = tiny_pipe.chat("what is this?", images=picture, max_new_tokens=6)
    with cached(tiny_pipe, ALWAYS):
        assert tiny_pipe.chat("what is this?", images=picture, max_new_tokens=6) == plain


def test_another_cache_is_refused_by_name(tiny_pipe):
    with pytest.raises(ValueError, match="FirstBlockCacheConfig or MagCacheConfig"):
        with cached(tiny_pipe, object()):
            pass
