"""What a callback changes counts, in its own call alone; seeds say the same in every spelling."""

import numpy as np
import pytest
import torch
from diffusers.callbacks import MultiPipelineCallbacks, SDCFGCutoffCallback, SDXLCFGCutoffCallback

import samplers


def run(pipe, prompt="a star", **options):
    options = dict(num_inference_steps=4, output_type="latent", seed=0) | options
    return pipe(prompt, **options)


# Callbacks


def halve(_pipe, _step, _t, tensors):
    tensors["latents"].mul_(0.5)
    return tensors


def halve_quietly(_pipe, _step, _t, tensors):
    tensors["latents"].mul_(0.5)


def halved(_pipe, _step, _t, tensors):
    return {"latents": tensors["latents"] * 0.5}


@pytest.mark.parametrize("sampler", ["euler", "abm", "dpmpp_2m"])
def test_latents_changed_in_place_count_as_those_that_are_returned(tiny_pipe, sampler):
    ends = [
        run(tiny_pipe, sampler=sampler, callback_on_step_end=function).images
        for function in (halve, halve_quietly, halved)
    ]
    assert torch.equal(ends[0], ends[1]) and torch.equal(ends[0], ends[2])
    assert not torch.equal(ends[0], run(tiny_pipe, sampler=sampler).images)


def test_a_callback_that_changes_nothing_changes_nothing(tiny_pipe):
    plain = run(tiny_pipe, sampler="abm").images
    for function in (lambda *_: None, lambda *a: a[-1], lambda *_: {}):
        assert torch.equal(
            run(tiny_pipe, sampler="abm", callback_on_step_end=function).images, plain
        )


def test_diffusers_cutoff_ends_the_guidance_of_its_call(tiny_pipe):
    cut = run(
        tiny_pipe,
        num_inference_steps=10,
        callback_on_step_end=SDCFGCutoffCallback(cutoff_step_ratio=0.4),
    )
    own = samplers.guidance_interval(2.0, 0.0, 0.5)  # guides the steps that begin before 0.5
    same = run(tiny_pipe, num_inference_steps=10, guidance_scale=own)
    assert cut.calls == same.calls == 10 + 5
    assert torch.allclose(cut.images, same.images, atol=1e-4)
    several = MultiPipelineCallbacks(
        [SDCFGCutoffCallback(cutoff_step_index=1, cutoff_step_ratio=None)]
    )
    assert run(tiny_pipe, callback_on_step_end=several).calls == 4 + 2
    assert run(tiny_pipe).calls == 8  # of the next call nothing is left


def test_a_callback_reads_and_sets_the_guidance_of_its_call(tiny_pipe):
    seen = []

    def stop_guiding(pipe, step, _t, tensors):
        seen.append((pipe.num_timesteps, pipe.guidance_scale))
        if step == 1:
            pipe.guidance_scale = 1.0
        return tensors

    assert run(tiny_pipe, guidance_scale=3.0, callback_on_step_end=stop_guiding).calls == 4 + 2
    assert seen == [(4, 3.0), (4, 3.0), (4, 1.0), (4, 1.0)]
    assert tiny_pipe.guidance_scale is None and tiny_pipe.num_timesteps is None
    with pytest.raises(AttributeError, match="belongs to a call"):
        tiny_pipe.guidance_scale = 2.0


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, ValueError, "gives latents, prompt_em"),
        ({"callback_on_step_end": SDXLCFGCutoffCallback()}, ValueError, "'add_text_embeds'"),
        ({"callback_on_step_end": lambda *_: torch.zeros(1)}, TypeError, "returned Tensor"),
        ({"callback_on_step_end": lambda *_: {"x": torch.zeros(1)}}, ValueError, "returned 'x'"),
        (
            {"callback_on_step_end": lambda *_: {"latents": torch.zeros(1)}},
            ValueError,
            r"latents of shape \(1,\)",
        ),
        ({"callback_on_step_end": 3}, TypeError, "callback_on_step_end is int"),
        (
            {
                "callback_on_step_end": lambda *a: {"prompt_embeds": a[-1]["prompt_embeds"] * 2},
                "callback_on_step_end_tensor_inputs": ["prompt_embeds"],
            },
            ValueError,
            "used only before the first step",
        ),
    ],
)
def test_what_a_callback_cannot_do_is_refused(tiny_pipe, options, kind, message):
    options = {"callback_on_step_end": lambda *a: a[-1]} | options
    with pytest.raises(kind, match=message):
        run(tiny_pipe, **options)


def test_a_callback_may_call_the_pipeline_itself(tiny_pipe):
    def inside(pipe, step, _t, tensors):
        if step == 1:
            run(pipe, "a ring", callback_on_step_end=stopping)
        return tensors

    def stopping(pipe, _step, _t, _tensors):
        pipe._interrupt = True

    assert torch.equal(run(tiny_pipe, callback_on_step_end=inside).images, run(tiny_pipe).images)


# Randomness


def test_seeds_and_generators_say_the_same_in_every_spelling(tiny_pipe):
    def noise(**options):
        return run(tiny_pipe, ["a star", "a ring"], num_inference_steps=1, **options).images

    seeds = [torch.Generator().manual_seed(n) for n in (5, 6)]
    expected = noise(seed=None, generator=seeds)
    for seed in (5, np.int64(5), [5, 6], np.array([5, 6]), (5, 6)):
        assert torch.equal(noise(seed=seed), expected)
    for generator in ([5, 6], np.array([5, 6])):
        assert torch.equal(noise(seed=None, generator=generator), expected)
    one = noise(seed=None, generator=torch.Generator().manual_seed(5))
    assert torch.equal(noise(seed=None, generator=np.int32(5)), one)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"seed": 1, "generator": 1}, ValueError, "leave one out"),
        ({"seed": -1}, ValueError, "the seed is -1"),
        ({"seed": 1.5}, TypeError, "the seed is 1.5"),
        ({"seed": True}, TypeError, "the seed is True"),
        ({"seed": [1, 2]}, ValueError, "2 seeds came for 1 images"),
        ({"seed": None, "generator": np.random.default_rng(0)}, TypeError, "the seed is Generator"),
    ],
)
def test_a_seed_that_is_none_is_refused(tiny_pipe, options, kind, message):
    with pytest.raises(kind, match=message):
        run(tiny_pipe, **options)
