"""NaN and infinity are found when they appear, and named: step, t, part and sample."""

import contextlib
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from smoke_runs import RECIPE, engine

import samplers
from janusflow.pipelines.pipeline_janusflow import JanusFlowPipeline
from janusflow.training import checkpoints, init_checkpoint, loop
from janusflow.utils import finite
from samplers.guidance import Guided, cfg, pair

PROMPTS = ["a red circle", "a blue square", "a star"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "base"
    init_checkpoint.first_model(RECIPE, folder)
    return folder


# Training


class Spoilt:
    """BatchSource what another draws, with one number of one sample changed from a step on."""

    def __init__(self, data, row, step, value):
        self.data, self.row, self.step, self.value = data, row, step, value

    def draw(self, step, *rest):
        samples = self.data.draw(step, *rest)
        if step >= self.step:
            samples[self.row].latents[0, 0, 0] = self.value
        return samples


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_broken_latent_is_named_with_step_and_sample_and_nothing_moves(base, value):
    found = engine(base)
    found.data = Spoilt(found.data, 3, 1, value)
    found.step()
    before = {name: p.detach().clone() for name, p in found.state.parameters.items()}
    with pytest.raises(FloatingPointError) as caught:
        found.step()
    rows = [s for s in found.data.draw(1, 0, 1, found.settings.training.counts(1))]
    said = str(caught.value)
    assert "step 1" in said and repr(rows[3].name) in said and "latents hold NaN" in said
    assert all(torch.equal(p, before[name]) for name, p in found.state.parameters.items())
    assert found.state.step == 1


def test_a_loss_that_overflows_is_named_with_its_time_and_sample(base):
    found = engine(base)
    found.data = Spoilt(found.data, 2, 0, 1e30)  # finite, but not its square
    with pytest.raises(FloatingPointError, match=r"step 0: .*flow of sample '.*' at t = 0\.\d"):
        found.step()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_gradient_is_named_with_its_weight_before_any_weight_moves(base, value):
    found = engine(base)
    name = next(n for n in found.state.parameters if "layers.1.mlp.up_proj" in n)
    hook = found.state.parameters[name].register_hook(lambda grad: grad * value)
    before = {n: p.detach().clone() for n, p in found.state.parameters.items()}
    with pytest.raises(FloatingPointError, match=r"gradient of .*1\.mlp\.up_proj.* at step 0"):
        found.step()
    assert all(torch.equal(p, before[n]) for n, p in found.state.parameters.items())
    hook.remove()
    found.optimizer.zero_grad()
    assert math.isfinite(found.step()["loss"])  # nothing of it is left behind


def test_a_run_that_breaks_leaves_only_checkpoints_that_are_finite(base, tmp_path):
    found = engine(base, **{"run.save_every": 1})
    found.data = Spoilt(found.data, 0, 2, math.nan)
    with pytest.raises(FloatingPointError, match="at step 2"):
        loop.run(found, tmp_path)
    step, tensors, _ = checkpoints.latest(tmp_path)
    assert step == 2 and all(x.isfinite().all() for x in tensors.values())


# Sampling


def spoil(value, sample, after):
    """v = -x, but for one sample at later times."""

    def v(x, t):
        k = -x
        if float(t) >= after:
            k = k.clone()
            k[sample, 0] = value
        return k

    return v


@pytest.mark.parametrize("name", ["euler", "heun", "rk4", "ab2", "auto"])
def test_a_broken_velocity_is_named_with_time_and_sample(name):
    x = torch.ones(3, 4)
    with pytest.raises(
        FloatingPointError, match=r"of sample 2 of 3 was not finite at t = 0\.[5-9]"
    ):
        samplers.sample(spoil(math.nan, 1, 0.5), x, 8, name)
    with pytest.raises(FloatingPointError, match="the velocity was not finite"):
        samplers.sample(lambda x, _: x * math.nan, x, 8, name)  # of all: no sample is at fault


@pytest.mark.parametrize(
    ("cond", "uncond", "weight", "part"),
    [
        (spoil(math.inf, 2, 0.5), spoil(0, 0, 2), 2.0, "velocity with the prompt"),
        (spoil(0, 0, 2), spoil(math.nan, 2, 0.5), 2.0, "velocity without the prompt"),
        (spoil(1e30, 2, 0.5), spoil(-1e30, 2, 0.5), 1e30, "guided velocity"),
    ],
)
def test_looking_names_the_part_where_it_begins(cond, uncond, weight, part):
    field = samplers.guide(pair(cond, uncond), cfg(weight)).checked()
    with pytest.raises(FloatingPointError, match=rf"{part} is not finite at t = 0\.5.* 3 of 3"):
        samplers.sample(field, torch.ones(3, 4), torch.linspace(0, 1, 5), "euler")


def test_looking_changes_nothing_where_all_is_finite():
    field = samplers.guide(pair(lambda x, _: -x, lambda x, t: x * t), cfg(2.0))
    x = torch.ones(3, 4)
    seen = samplers.sample(field.checked(), x, 8, "heun")
    assert torch.equal(seen, samplers.sample(field, x, 8, "heun"))


def test_the_pipeline_names_the_part_and_the_picture(tiny_pipe, monkeypatch):
    real = tiny_pipe.field

    def broken(*args):
        field = real(*args)

        def both(x, t):
            cond, uncond = field.pair.both(x, t)
            bad = uncond.clone()
            bad[1] = math.nan if float(t) > 0.4 else bad[1]
            return cond, bad

        return Guided(samplers.guidance.Pair(both), field.rule)

    monkeypatch.setattr(tiny_pipe, "field", broken)
    with pytest.raises(
        FloatingPointError, match=r"without the prompt .* t = 0\.5, .*sample 2 of 3"
    ):
        tiny_pipe(PROMPTS, num_inference_steps=4)


def test_a_starting_state_that_is_broken_is_named_as_such(tiny_pipe):
    noise = torch.randn(1, 16, 12, 12)
    noise[0, 3, 0, 0] = math.nan
    with pytest.raises(FloatingPointError, match="starting state"):
        tiny_pipe("a red circle", num_inference_steps=2, latents=noise)


# Weights, answers and images


def infected(folder, tmp_path, pattern, value):
    """A copy of a model's folder with one number of one weight changed; the weight's name."""
    shutil.copytree(folder, tmp_path / "model")
    for path in sorted((tmp_path / "model").rglob(pattern)):
        tensors = load_file(path)
        name = sorted(tensors)[len(tensors) // 2]
        tensors[name].view(-1)[-1] = value
        save_file(tensors, path, metadata={"format": "pt"})
        return name
    raise AssertionError(pattern)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("pattern", ["model.safetensors", "diffusion_pytorch_model.safetensors"])
def test_a_broken_weight_is_named_on_loading(pattern, value, tiny_folder, tmp_path):
    name = infected(tiny_folder, tmp_path, pattern, value)
    with pytest.raises(ValueError, match="holds NaN or infinity; download the weights") as caught:
        JanusFlowPipeline.from_pretrained(tmp_path / "model")
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_weights_of_any_format_are_looked_through(dtype):
    fine = {"a": torch.ones(3, dtype=dtype), "b": torch.zeros(0), "c": torch.ones(2).long()}
    finite.check_weights(fine | {"top": torch.full((4,), torch.finfo(dtype).max, dtype=dtype)}, "x")
    with pytest.raises(ValueError, match="broken in x"):
        finite.check_weights(fine | {"broken": torch.tensor([1, math.nan]).to(dtype)}, "x")


@contextlib.contextmanager
def overflowing(layer):
    """Within, a layer's finite weights give infinity."""
    hook = layer.register_forward_hook(lambda _, __, out: out * 3e38 * 10)
    try:
        yield
    finally:
        hook.remove()


@pytest.mark.parametrize("options", [{}, {"do_sample": True}, {"num_beams": 2}])
def test_an_answer_of_broken_logits_is_an_error_and_not_the_first_word(tiny_pipe, options):
    with overflowing(tiny_pipe.model.language_model.model.norm):
        with pytest.raises(FloatingPointError, match="logits are not finite at token 1 of an ans"):
            tiny_pipe.chat("what is it?", max_new_tokens=3, **options)
        with pytest.raises(FloatingPointError, match="at token 1"):
            list(tiny_pipe.chat("what is it?", max_new_tokens=3, stream=True))
    assert isinstance(tiny_pipe.chat("what is it?", max_new_tokens=3), str)


def test_a_picture_of_a_decoder_that_overflows_is_an_error_and_not_a_black_one(tiny_pipe):
    with overflowing(tiny_pipe.vae.decoder):
        with pytest.raises(FloatingPointError, match="pixels are not finite after the autoenc"):
            tiny_pipe("a red circle", num_inference_steps=1)


@pytest.fixture(scope="module")
def pro(tmp_path_factory):
    import tiny_pro

    import janusflow

    folder = tiny_pro.write_published(tmp_path_factory.mktemp("pro"), tiny_pro.model())
    pipe = janusflow.load(folder)
    pipe.set_progress_bar_config(disable=True)
    return folder, pipe


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("name", "loaded"),
    [
        ("gen_vision_model.quantize.embedding.weight", "model.vqmodel.quantize.embedding.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("vision_model.vision_tower.norm.bias", "model.vision_model.post_layernorm.bias"),
    ],
)
def test_a_broken_weight_of_janus_pro_is_named_on_loading(pro, name, loaded, value, tmp_path):
    import janusflow

    shutil.copytree(pro[0], tmp_path / "model")
    path = tmp_path / "model" / "pytorch_model.bin"
    tensors = torch.load(path, weights_only=True)
    tensors[name] = tensors[name].clone()
    tensors[name].view(-1)[0] = value
    torch.save(tensors, path)
    with pytest.raises(ValueError, match=f"^{loaded} in .* holds NaN or infinity"):
        janusflow.load(tmp_path / "model")


@pytest.mark.parametrize("options", [{"temperature": 0}, {}, {"guidance_scale": 1}, {"top_k": 3}])
def test_broken_logits_of_janus_pro_are_named_with_part_token_and_picture(pro, options):
    pipe, calls = pro[1], []
    rows = 2 if options.get("guidance_scale") == 1 else 4

    def spoil(_, __, out):
        calls.append(out := out.clone())
        if len(calls) == 3:
            out[rows - 1, 0] = math.nan
        return out

    hook = pipe.model.model.generation_head.register_forward_hook(spoil)
    part = "with the" if rows == 2 else "without the"
    try:
        with pytest.raises(
            FloatingPointError, match=rf"logits {part} prompt .* at token 3 of 16, .*sample 2 of 2"
        ):
            pipe(["a red circle", "a blue star"], **options)
    finally:
        hook.remove()


def test_guidance_of_janus_pro_that_overflows_is_named(pro):
    with pytest.raises(FloatingPointError, match="the guided logits are not finite at token 1"):
        pro[1]("a red circle", guidance_scale=3e38)


def test_answers_and_pictures_of_janus_pro_that_overflow_are_errors(pro):
    pipe = pro[1]
    with overflowing(pipe.model.model.language_model.norm):
        with pytest.raises(FloatingPointError, match="token 1 of an answer"):
            pipe.chat("what is it?", max_new_tokens=3)
    with overflowing(pipe.model.model.vqmodel.decoder):
        with pytest.raises(FloatingPointError, match="pixels are not finite after the VQ model"):
            pipe("a red circle")
