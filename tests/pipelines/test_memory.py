"""Memory: told beforehand, kept within a limit, and halved by 8-bit weights."""

import json

import pytest
import torch
from diffusers import AutoencoderKL

from janusflow import JanusFlowPipeline, load
from janusflow.cli import batch
from janusflow.models.autoencoder_loading import SDXL
from janusflow.models.janusflow.configuration import JanusFlowConfig
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.prompt_cache import PromptCache
from janusflow.pipelines import auto_pipeline, memory
from janusflow.pipelines.memory import available
from janusflow.utils.cpu import malloc
from janusflow.utils.finite import check_weights
from janusflow.utils.finite import plain as plain_parts
from janusflow.utils.hub import locate

TEXT = "a red circle left of a blue square"


@pytest.fixture(scope="module")
def pipe():
    return JanusFlowPipeline.from_pretrained("janusflow/scenes")


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return AutoencoderKL(**SDXL | dict(block_out_channels=(32, 32, 64, 64))).eval()


@pytest.mark.parametrize("pictures", [1, 5])
def test_the_forecast_is_what_the_network_then_takes(pipe, pictures):
    told = pipe.forecast(pictures, tokens=10)
    cond, uncond = pipe.encode_prompts([TEXT] * pictures)
    weights = [*pipe.model.parameters(), *pipe.model.buffers()]
    with torch.no_grad(), memory.Living(weights) as living:
        x = torch.randn(pictures, 16, 12, 12)
        prompt = PromptCache.cat([cond, uncond[[0] * pictures]])
        pipe.model.velocity(torch.cat([x, x]), torch.rand(2 * pictures), prompt)
    assert living.most == pytest.approx(told.sampling, rel=0.1)
    assert told.weights == memory.held(pipe.model) + memory.held(pipe.vae)


def test_the_published_model_is_forecast_without_its_memory():
    config, vae = JanusFlowConfig(), memory.unbuilt(lambda kw: AutoencoderKL(**kw), SDXL)
    half = memory.forecast(config, vae, dtype=torch.bfloat16)
    coded = memory.forecast(config, vae, dtype=torch.bfloat16, eight_bit=True)
    wide = memory.forecast(config, vae, height=768, width=768)
    count = config.parameters + sum(p.numel() for p in vae.parameters())
    assert half.weights == pytest.approx(2 * count, rel=1e-3)
    assert half.peak < 8e9 and coded.peak < 5e9 and coded.weights < 0.65 * half.weights
    assert 3.9 < wide.decoding / memory.forecast(config, vae).decoding < 6  # by area and attention


def test_a_cpu_takes_less_for_many_rows_than_a_card():
    config, vae = JanusFlowConfig(), memory.unbuilt(lambda kw: AutoencoderKL(**kw), SDXL)
    setting = dict(images=8, dtype=torch.bfloat16)
    parts, whole = (memory.forecast(config, vae, device=d, **setting) for d in ("cpu", "cuda"))
    assert parts.sampling < 0.7 * whole.sampling
    assert (parts.weights, parts.decoding) == (whole.weights, whole.decoding)


def test_living_forgets_what_is_freed():
    with memory.Living() as living:
        a = torch.zeros(1000)
        b = a.view(10, 100) + 1  # the view is no memory of its own
        del a
        torch.zeros(500)
    assert (living.now, living.most) == (b.nbytes, 8000)


def test_decoding_within_a_limit_gives_the_same_pictures(vae):
    z = torch.randn(3, 4, 16, 16)
    whole = memory.decode(vae, z)
    one = memory.decoding(memory.unbuilt(type(vae).from_config, vae.config), z[:1].shape, vae.dtype)
    calls = []
    vae.decoder.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    sliced = memory.decode(vae, z, whole.nbytes + int(2.5 * one))
    assert calls == [2, 1]
    torch.testing.assert_close(sliced, whole, rtol=1e-4, atol=1e-4)
    with pytest.warns(UserWarning, match="tiles of 8 latents"):
        tiles = memory.decode(vae, z, whole.nbytes + one // 2)
    assert tiles.shape == whole.shape and not vae.use_tiling
    with pytest.raises(ValueError, match="raise the memory limit"):
        memory.decode(vae, z, whole.nbytes + one // 100)


def test_slicing_and_tiling_are_the_pipelines_and_the_autoencoder_is_not_touched(pipe, vae):
    x = pipe.prepare_latents(3, None, None, 0)
    whole, rows = pipe.decode(x, "pt"), []
    hook = pipe.vae.decoder.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    try:
        for way in (pipe, pipe.vae):
            (way.enable_vae_slicing if way is pipe else way.enable_slicing)()
            assert torch.allclose(pipe.decode(x, "pt"), whole, atol=1e-6)
            (way.disable_vae_slicing if way is pipe else way.disable_slicing)()
    finally:
        hook.remove()
    assert rows == [1] * 6
    pipe.enable_vae_tiling()
    assert torch.equal(pipe.decode(x, "pt"), whole)
    pipe.disable_vae_tiling()
    z = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    before = vae.tile_latent_min_size, vae.tile_sample_min_size
    vae.tile_latent_min_size, vae.tile_sample_min_size = 8, 64
    tiles = memory.decode(vae, z, tiling=True)
    assert tiles.shape == (1, 3, 128, 128) and not vae.use_tiling
    vae.enable_tiling()
    assert torch.equal(tiles, vae.decode(z).sample)
    vae.disable_tiling()
    vae.tile_latent_min_size, vae.tile_sample_min_size = before


def test_a_pipeline_keeps_its_limit(pipe):
    told = pipe.forecast(4)
    asked = dict(num_inference_steps=1, generator=torch.Generator().manual_seed(0))
    free = pipe([TEXT] * 4, **asked, output_type="pt").images
    calls = []
    hook = pipe.vae.decoder.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    pipe.limit_memory(told.decoding - 1)
    try:
        asked["generator"].manual_seed(0)
        kept = pipe([TEXT] * 4, **asked, output_type="pt").images
    finally:
        pipe.limit_memory(None)
        hook.remove()
    assert len(calls) > 1 and (kept - free).abs().max() < 1e-5


def test_a_batch_is_as_large_as_memory_allows(pipe, monkeypatch):
    rows = [TEXT] * 40
    weights, told = memory.held(pipe.model) + memory.held(pipe.vae), pipe.forecast(1, tokens=10)

    def room(pictures):
        return (weights + pictures * told.sampling) / 1e9

    assert batch.at_once(pipe, rows, room(5.6), None, None) == 5
    assert batch.at_once(pipe, rows[:3], room(5.6), None, None) == 3
    assert batch.at_once(pipe, rows, None, None, None) == batch.MOST["cpu"]
    monkeypatch.setattr(memory, "free", lambda _: 4 * told.sampling)
    assert batch.at_once(pipe, rows, None, None, None) == 3  # of 90 per cent
    monkeypatch.setattr(memory, "free", lambda _: 0)
    assert batch.at_once(pipe, rows, None, None, None) == 1
    with pytest.raises(ValueError, match="one image takes"):
        batch.at_once(pipe, rows, weights / 1e9, None, None)


def test_a_containers_limit_counts(tmp_path):
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    (tmp_path / "memory.stat").write_text("anon 800\ninactive_file 1000\n")
    assert available._of_group(str(tmp_path)) == 4000
    (tmp_path / "memory.max").write_text("max\n")
    assert available._of_group(str(tmp_path)) is None
    assert available._of_machine(str(tmp_path / "none")) is None
    assert memory.free(torch.device("cpu")) > 1e8


def test_info_tells_the_memory_of_a_setting(janusflow):
    one, four = (
        json.loads(janusflow("info", "--json", f"--images={n}")[1])["memory"] for n in (1, 4)
    )
    assert four["float32"]["sampling"] == 4 * one["float32"]["sampling"]
    assert one["int8"]["weights"] < one["bfloat16"]["weights"] < one["float32"]["weights"]
    assert "at least 1" in janusflow("info", "--images=0")[2]
    assert "multiples of 16" in janusflow("info", "--height=100")[2]


def test_info_names_a_configuration_that_does_not_run(janusflow, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("shapes do not fit\nat all")

    monkeypatch.setattr(JanusFlowModel, "unchecked_velocity", broken)
    code, _, err = janusflow("info")
    assert code == 2 and err.count("\n") == 1
    assert "does not run (shapes do not fit at all); check config.json" in err


@pytest.fixture(scope="module")
def coded():
    pytest.importorskip("torchao")
    return JanusFlowPipeline.from_pretrained(
        "janusflow/scenes", quantization_config=auto_pipeline.eight_bit()
    )


def test_eight_bit_weights_move_as_the_plain_ones_do(pipe, coded):
    x = torch.randn(2, 16, 12, 12, generator=torch.Generator().manual_seed(0))
    v, w = (p.field([TEXT] * 2, 2.0)(x, torch.tensor(0.4)) for p in (pipe, coded))
    assert 0 < (v - w).norm() / v.norm() < 0.05
    told = memory.of_folder(locate("janusflow/scenes"), eight_bit=True)
    held = memory.held(coded.model) + memory.held(coded.vae)
    assert held == pytest.approx(told.weights, rel=0.01)


def test_eight_bit_weights_are_not_saved_as_plain_ones(coded, tmp_path):
    with pytest.raises(ValueError, match="quantise when loading"):
        coded.save_pretrained(tmp_path / "new")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_nan_in_eight_bit_weights_is_named(coded):
    weight = coded.model.state_dict()["vision_gen_dec_aligner.weight"]
    scale = weight.scale.view(-1)
    before = scale[0].clone()
    scale[0] = float("nan")
    try:
        with pytest.raises(ValueError, match="vision_gen_dec_aligner"):
            check_weights(coded.model.state_dict(), "here")
    finally:
        scale[0] = before


def test_eight_bit_is_a_dtype_of_the_command_line(janusflow, tmp_path):
    pytest.importorskip("torchao")
    words = ["generate", TEXT, "--device=cpu", "--steps=1", "-o", tmp_path / "a.png"]
    assert janusflow(*words, "--dtype=int8", "--memory=1") == (0, f"{tmp_path / 'a.png'}\n", "")
    assert "choose one of auto, float32" in janusflow(*words, "--dtype=int4")[2]
    assert "one image takes" in janusflow(*words, "--memory=0.001")[2]


@pytest.mark.parametrize("name", ["janusflow/scenes", "janusflow/scenes-pro"])
def test_more_images_than_there_is_memory_for_are_refused_at_once(name, monkeypatch):
    pipe = load(name)
    monkeypatch.setattr(available, "free", lambda _: 2**20)
    with pytest.raises(ValueError, match=r"9,000 images at once take at least .* GiB and .* fewer"):
        pipe("a red circle", num_images_per_prompt=9000)


def test_an_image_of_more_tokens_than_positions_is_refused_at_once(pipe):
    for call in (
        lambda: pipe("a star", height=8192, width=8192),
        lambda: pipe("a star", latents=torch.zeros(1, 16, 1024, 1024)),
        lambda: pipe.edit(torch.zeros(3, 96, 96), "a star", height=8192, width=96),
    ):
        with pytest.raises(ValueError, match="tokens, and the language model has 1,024 positions"):
            call()


def test_eight_bit_weights_are_read_apart_from_their_file(tmp_path, coded):
    plain = JanusFlowPipeline.from_pretrained("janusflow/scenes")
    plain.save_pretrained(tmp_path, max_shard_size="1MB", variant="fp16")
    again = JanusFlowPipeline.from_pretrained(
        tmp_path, variant="fp16", quantization_config=auto_pipeline.eight_bit()
    )
    for name, weight in coded.model.state_dict().items():
        other = again.model.state_dict()[name]
        assert type(other) is type(weight), name
        for own, same in zip(plain_parts(other), plain_parts(weight), strict=True):
            assert torch.equal(own, same), name
    assert again.model.config.name_or_path == str(tmp_path)


def test_large_blocks_are_given_back(monkeypatch):
    told = []
    monkeypatch.setattr(malloc, "_mallopt", lambda: lambda *args: told.append(args))
    with pytest.raises(KeyError), malloc.returned():
        raise KeyError
    assert told == [(malloc.MMAP_THRESHOLD, malloc.SMALL), (malloc.MMAP_THRESHOLD, malloc.LARGE)]
    JanusFlowModel.from_pretrained(locate("janusflow/scenes"))
    assert len(told) == 2  # plain weights leave the heap alone


def test_a_forecast_of_very_many_images_is_instant_and_rises_as_before(tiny_pipe):
    few, more, many = (tiny_pipe.forecast(n) for n in (64, 96, 10**9))
    assert few.sampling < more.sampling < many.sampling and few.decoding < more.decoding
    assert many.weights == few.weights
