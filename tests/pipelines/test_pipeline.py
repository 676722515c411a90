"""The pipeline keeps its promises on a tiny model with random weights."""

import copy

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file

import samplers
from janusflow import JanusFlowPipeline
from janusflow.models.janusflow.generation_adapters import Times
from janusflow.pipelines.guided_velocity import CachedTimes

PROMPTS = ["a red circle", "three yellow hearts and a pink ring left of a black cross"]


def seeds(*numbers):
    return [torch.Generator().manual_seed(n) for n in numbers]


def run(pipe, prompts, **kwargs):
    options = dict(num_inference_steps=4, output_type="latent", generator=seeds(0))
    return pipe(prompts, **(options | kwargs))


def test_one_call_makes_pictures_and_counts_network_evaluations(tiny_pipe):
    out = tiny_pipe(PROMPTS, num_inference_steps=3, num_images_per_prompt=2)
    assert [image.size for image in out.images] == [(96, 96)] * 4
    assert out.calls == 2 * 3
    assert run(tiny_pipe, "a star", guidance_scale=1.0).calls == 4
    assert run(tiny_pipe, "a star", sampler="heun").calls == 2 * 2 * 4


@pytest.mark.parametrize("kind", ["pil", "np", "pt", "latent"])
def test_output_types_are_those_of_diffusers(tiny_pipe, kind):
    images = run(tiny_pipe, PROMPTS, generator=seeds(0, 1), output_type=kind).images
    shapes = {"np": (2, 96, 96, 3), "pt": (2, 3, 96, 96), "latent": (2, 16, 12, 12)}
    if kind == "pil":
        assert all(isinstance(image, Image.Image) for image in images)
    else:
        assert tuple(images.shape) == shapes[kind]
        assert isinstance(images, np.ndarray if kind == "np" else torch.Tensor)
    assert run(tiny_pipe, "a star", return_dict=False)[1] == 8


def test_prompts_of_different_lengths_give_the_pictures_they_give_alone(tiny_pipe):
    both = run(tiny_pipe, PROMPTS, num_images_per_prompt=2, generator=seeds(0, 1, 2, 3)).images
    for row, prompt in enumerate(PROMPTS):
        own = seeds(2 * row, 2 * row + 1)
        alone = run(tiny_pipe, prompt, num_images_per_prompt=2, generator=own).images
        error = (both[2 * row : 2 * row + 2] - alone).abs().max()
        assert error <= 1e-4 * alone.abs().max()


def test_guidance_one_is_the_conditional_field_and_weights_extrapolate(tiny_pipe):
    x, t = torch.randn(1, 16, 12, 12), torch.tensor(0.3, dtype=torch.float64)
    v = {w: tiny_pipe.field([PROMPTS[0]], w)(x, t) for w in (0.0, 1.0, 3.0)}
    assert not torch.allclose(v[0.0], v[1.0], rtol=1e-3)
    expected = v[0.0] + 3 * (v[1.0] - v[0.0])
    assert torch.allclose(v[3.0], expected, atol=1e-4)


def test_an_interval_of_guidance_saves_its_calls(tiny_pipe):
    rule = samplers.guidance_interval(2.0, 0.25, 0.5)
    assert run(tiny_pipe, "a star", guidance_scale=rule).calls == 4 + 1  # the rule ends before 0.5


def test_a_negative_prompt_takes_the_empty_prompts_place(tiny_pipe):
    plain = run(tiny_pipe, "a star").images
    negative = run(tiny_pipe, "a star", negative_prompt="a ring").images
    same = run(tiny_pipe, "a star", negative_prompt="a star", guidance_scale=5.0).images
    assert not torch.allclose(plain, negative, rtol=1e-3)
    free = run(tiny_pipe, "a star", guidance_scale=1.0).images
    assert torch.allclose(same, free, atol=1e-3)


def test_the_sampler_is_any_of_samplers_and_equals_it(tiny_pipe):
    noise = torch.randn(1, 16, 12, 12, generator=seeds(3)[0])
    found = run(tiny_pipe, "a star", latents=noise, sampler="midpoint", grid="cosine").images
    with torch.no_grad():
        ts = samplers.cosine(4)
        expected = samplers.sample(tiny_pipe.field(["a star"], 2.0, ts=ts), noise, ts, "midpoint")
        rounded = samplers.sample(tiny_pipe.field(["a star"], 2.0), noise, ts, "midpoint")
    assert torch.equal(found, expected)
    assert torch.allclose(found, rounded, atol=1e-5)


def test_a_grids_times_go_through_the_network_once(tiny_pipe):
    seen = []
    hook = tiny_pipe.model.vision_gen_enc_model.time_embed.register_forward_hook(
        lambda _module, args, _out: seen.append(len(args[0]))
    )
    try:
        run(tiny_pipe, "a star", sampler="euler", num_inference_steps=4)
        assert seen == [5]
        run(tiny_pipe, "a star", sampler="midpoint", num_inference_steps=2)
        assert seen == [5, 3, 2, 2]  # the times between come as they do, for both rows
    finally:
        hook.remove()


def test_times_are_not_made_where_weights_lie_elsewhere(tiny_pipe):
    model = tiny_pipe.model
    ts, x = torch.linspace(0, 1, 3), torch.zeros(2, 16, 12, 12)
    assert torch.equal(CachedTimes(model, ts.to("meta"))(ts[1], x), torch.tensor([0.5, 0.5]))
    assert isinstance(CachedTimes(model, ts)(ts[1].double(), x), Times)
    assert torch.equal(CachedTimes(model, ts)(torch.tensor(0.4), x), torch.tensor([0.4, 0.4]))
    assert torch.equal(CachedTimes(model, ts)(torch.tensor([0.5, 1]), x), torch.tensor([0.5, 1]))


def test_adaptive_samplers_read_the_prompt_as_often_as_they_like(tiny_pipe):
    solver = samplers.SOLVERS["bosh3"].with_options(rtol=1e-3, atol=1e-3)
    out = run(tiny_pipe, "a star", sampler=solver, num_inference_steps=1)
    assert out.calls > 8 and out.images.isfinite().all()


def test_the_state_is_float32_with_a_bfloat16_network(tiny_folder):
    pipe = JanusFlowPipeline.from_pretrained(tiny_folder, dtype=torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    seen = []
    out = run(pipe, "a star", callback_on_step_end=lambda _p, _i, _t, kw: seen.append(kw))
    assert out.images.dtype == torch.float32
    assert {kw["latents"].dtype for kw in seen} == {torch.float32}
    assert pipe.vae.dtype == torch.bfloat16
    half = JanusFlowPipeline.from_pretrained(tiny_folder, dtype=torch.float16)
    assert half.vae.dtype == torch.float32


def test_a_callback_sees_every_step_may_change_the_state_and_may_stop(tiny_pipe):
    times = []
    plain = run(tiny_pipe, "a star", callback_on_step_end=lambda _p, i, t, _: times.append((i, t)))
    assert [i for i, _ in times] == [0, 1, 2, 3]
    assert [float(t) for _, t in times] == [0.25, 0.5, 0.75, 1.0]

    def reset(_pipe, step, _t, kwargs):
        return {"latents": torch.zeros_like(kwargs["latents"])} if step == 3 else {}

    assert not run(tiny_pipe, "a star", callback_on_step_end=reset).images.any()

    def stop(pipe, step, _t, _kwargs):
        pipe._interrupt = step == 1

    early = run(tiny_pipe, "a star", callback_on_step_end=stop)
    assert early.calls == 4 and not torch.equal(early.images, plain.images)


def test_saving_and_loading_gives_the_same_pictures_and_bytes(tiny_pipe, tiny_folder, tmp_path):
    tiny_pipe.save_pretrained(tmp_path)
    again = JanusFlowPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert torch.equal(run(again, "a star").images, run(tiny_pipe, "a star").images)
    for name in ("model.safetensors", "vae/diffusion_pytorch_model.safetensors"):
        a, b = load_file(tiny_folder / name), load_file(tmp_path / name)
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert (tmp_path / "tokenizer.json").read_text() == (tiny_folder / "tokenizer.json").read_text()


def test_the_autoencoder_may_be_named_and_is_asked_for_when_missing(tiny_folder, tmp_path):
    import shutil

    shutil.copytree(tiny_folder, tmp_path / "bare", ignore=shutil.ignore_patterns("vae"))
    bare = JanusFlowPipeline.from_pretrained(tmp_path / "bare")
    assert isinstance(bare.chat("what is it?", max_new_tokens=2), str)  # which needs none
    with pytest.raises(ValueError, match="holds no vae/"):
        bare("a star")
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=16,
        norm_num_groups=4,
        scaling_factor=0.13025,
    )
    vae.save_pretrained(tmp_path / "kl")
    pipe = JanusFlowPipeline.from_pretrained(tmp_path / "bare", vae=tmp_path / "kl")
    pipe.set_progress_bar_config(disable=True)
    z = run(pipe, "a star").images
    shown = run(pipe, "a star", output_type="pt").images
    expected = vae.eval().decode(z / 0.13025).sample.detach().div(2).add(0.5).clamp(0, 1)
    assert torch.allclose(shown, expected, atol=1e-5)


def test_other_sizes_work_with_a_warning_that_names_the_trained_one(tiny_pipe):
    with pytest.warns(UserWarning, match="trained for 96 x 96"):
        out = tiny_pipe("a star", num_inference_steps=1, height=64, width=128)
    assert out.images[0].size == (128, 64)


def test_questions_are_answered_whole_or_in_pieces(tiny_pipe):
    picture = Image.new("RGB", (40, 30), "red")
    whole = tiny_pipe.chat("what color is it?", [picture], max_new_tokens=6)
    pieces = tiny_pipe.chat("what color is it?", [picture], max_new_tokens=6, stream=True)
    assert isinstance(whole, str) and "".join(pieces).strip() == whole
    shown = {"type": "image", "image": picture}
    turns = [
        {"role": "user", "content": [shown, {"type": "text", "text": "is it red?"}]},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "how many shapes are there?"},
    ]
    before = copy.deepcopy(turns)
    assert isinstance(tiny_pipe.chat(turns, max_new_tokens=4), str)
    assert turns == before
    assert tiny_pipe.chat("a?", [picture, picture], max_new_tokens=3) is not None


def test_an_answer_that_fails_in_a_stream_fails_where_one_waits(tiny_pipe):
    picture = Image.new("RGB", (40, 30), "red")
    pieces = tiny_pipe.chat("what?", [picture], stream=True, bad_words_ids="many")
    with pytest.raises((ValueError, TypeError)):
        list(pieces)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": ""}, "none empty"),
        ({"prompt": []}, "none empty"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"num_inference_steps": -3}, "num_inference_steps is -3"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt is 0"),
        ({"sampler": "runge"}, "no solver named 'runge'; choose one of"),
        ({"grid": "spiral"}, "no grid named 'spiral'"),
        ({"guidance_scale": float("nan")}, "not finite"),
        ({"height": 90}, "must be multiples of 16"),
        ({"latents": torch.zeros(1, 16, 11, 12)}, "must be multiples of 16"),
        ({"latents": torch.zeros(1, 4, 12, 12)}, "expected \\(1, 16, height, width\\)"),
        ({"generator": seeds(1, 2)}, "2 generators came for 1 images"),
        ({"output_type": "jpeg"}, "choose one of pil, np, pt, latent"),
        ({"negative_prompt": ["a", "b"]}, "2 negative prompts came for 1 prompts"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(tiny_pipe, change, message):
    call = {"prompt": "a star", "num_inference_steps": 2} | change
    with pytest.raises(ValueError, match=message):
        tiny_pipe(**call)


def test_latents_that_blew_up_are_named_and_not_drawn(tiny_pipe):
    with pytest.raises(FloatingPointError, match="starting state holds NaN"):
        run(tiny_pipe, "a star", latents=torch.full((1, 16, 12, 12), float("inf")))
