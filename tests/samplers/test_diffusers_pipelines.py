"""Our solvers inside diffusers' own pipelines, around tiny networks of random weights."""

import diffusers
import numpy as np
import pytest
import torch

import samplers
from samplers.diffusers import SolverScheduler

SOLVERS = ["euler", "heun", "midpoint", "rk4", "abm", "ab4", "fireflow", "auto", "dpmpp_2m"]
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}


def embeds(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


def image(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(8)) * 2 - 1


def quiet(kind, **parts):
    pipe = kind(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def kl(channels=4):
    return diffusers.AutoencoderKL(
        block_out_channels=(8,), latent_channels=channels, norm_num_groups=4, shift_factor=0.1
    )


def none(*names):
    return dict.fromkeys(names)


def sd3(kind=diffusers.StableDiffusion3Pipeline, channels=16):
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=channels,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        caption_projection_dim=16,
        pooled_projection_dim=16,
        out_channels=channels,
        pos_embed_max_size=8,
    )
    texts = none(
        *(f"{part}{i}" for part in ("text_encoder", "tokenizer") for i in ("", "_2", "_3"))
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    pipe = quiet(kind, transformer=transformer, vae=kl(channels), scheduler=scheduler, **texts)
    inputs = {"prompt_embeds": embeds(1, 5, 16), "pooled_prompt_embeds": embeds(1, 16)}
    return pipe, inputs | {"guidance_scale": 1.0, "height": 8, "width": 8}


def flux(kind=diffusers.FluxPipeline):
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        axes_dims_rope=(2, 2, 4),
    )
    texts = none("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    pipe = quiet(kind, transformer=transformer, vae=kl(), scheduler=scheduler, **texts)
    inputs = {"prompt_embeds": embeds(1, 5, 16), "pooled_prompt_embeds": embeds(1, 16)}
    return pipe, inputs | {"height": 8, "width": 8}


def qwen(kind=diffusers.QwenImagePipeline):
    transformer = diffusers.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(8, 4, 4),
    )
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, shift_terminal=0.02, base_shift=0.5, max_shift=0.9
    )
    texts = none("text_encoder", "tokenizer")
    pipe = quiet(kind, transformer=transformer, vae=vae, scheduler=scheduler, **texts)
    mask = torch.ones(1, 5, dtype=torch.int64)
    inputs = {"prompt_embeds": embeds(1, 5, 16), "prompt_embeds_mask": mask}
    return pipe, inputs | {"height": 32, "width": 32}


def wan(kind=diffusers.WanPipeline):
    transformer = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=32,
        ffn_dim=32,
        num_layers=1,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )
    vae = diffusers.AutoencoderKLWan(
        base_dim=3,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    scheduler = diffusers.UniPCMultistepScheduler(flow_shift=5.0, **FLOW)
    texts = none("text_encoder", "tokenizer")
    pipe = quiet(kind, transformer=transformer, vae=vae, scheduler=scheduler, **texts)
    inputs = {"prompt_embeds": embeds(1, 5, 16), "guidance_scale": 1.0}
    return pipe, inputs | {"height": 16, "width": 16}


def sana(kind=diffusers.SanaPipeline):
    transformer = diffusers.SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=8,
        sample_size=8,
    )
    vae = diffusers.AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
    )
    scheduler = diffusers.DPMSolverMultistepScheduler(flow_shift=3.0, **FLOW)
    texts = none("text_encoder", "tokenizer")
    pipe = quiet(kind, transformer=transformer, vae=vae, scheduler=scheduler, **texts)
    inputs = {"prompt_embeds": embeds(1, 5, 8), "prompt_attention_mask": torch.ones(1, 5)}
    inputs |= {"guidance_scale": 1.0, "height": 32, "width": 32, "prompt": None}
    return pipe, inputs | {"use_resolution_binning": False, "complex_human_instruction": None}


@pytest.fixture(scope="module", params=[sd3, flux, qwen, wan, sana], ids=lambda make: make.__name__)
def made(request):
    torch.manual_seed(0)
    return request.param()


def run(pipe, inputs, scheduler, seed=3, **more):
    """The final latents, and (model output, timestep, sample) of every step."""
    pipe.scheduler, steps, step = scheduler, [], scheduler.step

    def recorded(output, timestep, sample, *args, **kwargs):
        steps.append((output.clone(), float(timestep), sample.clone()))
        return step(output, timestep, sample, *args, **kwargs)

    scheduler.step = recorded
    generator = torch.Generator().manual_seed(seed)
    out = pipe(**inputs, generator=generator, output_type="latent", **more)
    return out[0], steps


def ours(pipe, name, **options):
    return SolverScheduler.from_config(pipe.scheduler.config, solver=name, **options)


def assert_alone(steps, end, solver, ts):
    """The solver alone, given the outputs of the network, asks for them at the same states."""
    left = iter(steps)

    def v(x, t):
        output, timestep, sample = next(left)
        assert timestep == pytest.approx(1000 * (1 - float(t)), abs=1e-3)
        assert torch.allclose(x, sample, atol=1e-5)
        return -output

    alone = samplers.sample(v, steps[0][2], ts, solver)
    assert torch.allclose(alone, end, atol=1e-5) and next(left, None) is None


@pytest.mark.parametrize("name", SOLVERS)
def test_a_pipeline_walks_as_the_solver_does_alone(made, name):
    pipe, inputs = made
    theirs = pipe.scheduler
    scheduler = ours(pipe, name)
    end, steps = run(pipe, inputs, scheduler, num_inference_steps=4)
    pipe.scheduler = theirs
    assert_alone(steps, end, name, scheduler._ts)


@pytest.mark.parametrize("make", [sd3, flux, qwen, wan, sana])
def test_the_schedule_is_the_models_own(make):
    """Up to the last step, that only the default grid of diffusers' Euler cuts to nothing."""
    torch.manual_seed(0)
    pipe, inputs = make()
    theirs, mine = pipe.scheduler, ours(pipe, "euler")
    grid = {"sigmas": [1 - i / 6 for i in range(6)]} if make is sd3 else {"num_inference_steps": 6}
    ends = [run(pipe, inputs, scheduler, **grid)[0] for scheduler in (theirs, mine)]
    assert torch.allclose(mine.sigmas, theirs.sigmas.float().cpu(), atol=2e-3)
    if "Euler" in type(theirs).__name__:
        assert torch.allclose(*ends, rtol=0, atol=1e-5)


IMAGES = {
    "sd3": (sd3, diffusers.StableDiffusion3Img2ImgPipeline),
    "flux": (flux, diffusers.FluxImg2ImgPipeline),
    "qwen": (qwen, diffusers.QwenImageImg2ImgPipeline),
    "wan": (wan, diffusers.WanVideoToVideoPipeline),
}


@pytest.fixture(scope="module", params=IMAGES)
def changing(request):
    torch.manual_seed(0)
    make, kind = IMAGES[request.param]
    pipe, inputs = make(kind)
    size = inputs["height"], inputs["width"]
    if request.param == "wan":
        frames = [np.full((*size, 3), 90, np.uint8)]
        return pipe, inputs | {"video": frames}
    return pipe, inputs | {"image": image(1, 3, *size)}


@pytest.mark.parametrize("strength", [0.6])
@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "auto"])
def test_image_to_image_moves_as_far_as_there_is_noise(changing, name, strength, monkeypatch):
    """With one velocity everywhere the way is that velocity times the noise level it starts at."""
    pipe, inputs = changing
    theirs, scheduler = pipe.scheduler, ours(pipe, name)

    def constant(hidden_states, **_):
        return (torch.ones_like(hidden_states),)

    monkeypatch.setattr(pipe.transformer, "forward", constant)
    end, steps = run(pipe, inputs, scheduler, num_inference_steps=12, strength=strength)
    pipe.scheduler = theirs
    sigma = steps[0][1] / 1000
    assert torch.allclose(end, steps[0][2] - sigma, atol=1e-5)
    assert len(steps) == pytest.approx(strength * len(scheduler.timesteps), abs=4)
    assert sigma < 1


@pytest.mark.parametrize("kind", ["StableDiffusion3InpaintPipeline", "FluxInpaintPipeline"])
@pytest.mark.parametrize("name", ["euler", "heun", "abm", "dpmpp_2m"])
def test_inpainting_ends_as_diffusers_own_does(kind, name):
    """Ours by Euler is theirs; by others the part outside the mask is theirs all the same."""
    torch.manual_seed(0)
    pipe, inputs = (sd3 if "3" in kind else flux)(getattr(diffusers, kind))
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 4:] = 1
    inputs |= {"image": image(1, 3, 8, 8), "mask_image": mask, "strength": 0.75}
    grid = {"sigmas": [1 - i / 8 for i in range(8)]}
    theirs, ends = pipe.scheduler, []
    for scheduler in (theirs, ours(pipe, name)):
        ends.append(run(pipe, inputs, scheduler, **grid)[0])
    kept = torch.isclose(*ends, atol=1e-5)
    assert bool(kept.all()) if name == "euler" else 0.4 < float(kept.double().mean()) < 1


@pytest.mark.parametrize("name", ["euler_maruyama", "sde_heun", "overshoot"])
def test_a_stochastic_solver_follows_the_pipelines_generator(made, name):
    pipe, inputs = made
    theirs = pipe.scheduler
    steps = {"num_inference_steps": 3}
    torch.manual_seed(0)
    one, walk = run(pipe, inputs, ours(pipe, name), **steps)
    torch.manual_seed(0)
    two, _ = run(pipe, inputs, ours(pipe, name), **steps)
    pipe.scheduler = theirs
    assert torch.equal(one, two)
    first, last = walk[0][2].flatten(), one.flatten()
    fresh = last - walk[-1][2].flatten()
    assert abs(float(torch.corrcoef(torch.stack([first, fresh]))[0, 1])) < 0.9
