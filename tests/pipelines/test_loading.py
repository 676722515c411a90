"""What from_pretrained takes is used, what it does not take is refused, what is saved is read."""

import json
import shutil
import warnings

import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file

import janusflow
from janusflow import JanusFlowPipeline
from janusflow.models import latents as coding
from janusflow.models.autoencoder import PatchAutoencoder

load = JanusFlowPipeline.from_pretrained


def kl(channels=16, blocks=4, **more):
    return AutoencoderKL(
        block_out_channels=(8,) * blocks,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        latent_channels=channels,
        norm_num_groups=4,
        **more,
    ).eval()


@pytest.fixture
def copied(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "model")
    return tmp_path / "model"


def first(pipe) -> torch.Tensor:
    return next(pipe.model.parameters())


@pytest.fixture
def two(copied):
    """A folder with another model in step-500, and both pipelines."""
    root = load(copied)
    inner = load(copied)
    with torch.no_grad():
        for weight in inner.model.parameters():
            weight.mul_(2)
    inner.save_pretrained(copied / "step-500")
    return copied, root, inner


def test_a_subfolder_is_the_one_that_is_loaded(two):
    folder, root, inner = two
    assert torch.equal(first(load(folder, subfolder="step-500")), first(inner))
    assert torch.equal(first(janusflow.load(folder, subfolder="step-500")), first(inner))
    assert torch.equal(first(load(folder)), first(root))
    for wrong, message in (("step-501", "holds no folder"), ("../model", "leads out")):
        with pytest.raises(ValueError, match=message):
            load(folder, subfolder=wrong)


def test_given_parts_are_used_and_not_written_to(tiny_pipe, tiny_folder):
    pipe = load(tiny_folder, model=tiny_pipe.model, processor=tiny_pipe.processor)
    assert pipe.model is tiny_pipe.model and pipe.processor is tiny_pipe.processor
    half = load(tiny_folder, vae=tiny_pipe.vae, dtype="bfloat16")
    assert half.vae is tiny_pipe.vae and tiny_pipe.vae.dtype == torch.float32
    assert half.model.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        ({"dtype": "bfloat16"}, torch.bfloat16),
        ({"torch_dtype": "torch.float16"}, torch.float16),
        ({"torch_dtype": torch.bfloat16}, torch.bfloat16),
        ({"dtype": "auto"}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_a_dtype_is_torchs_or_a_name(tiny_folder, given, dtype):
    pipe = load(tiny_folder, **given)
    assert pipe.model.dtype == dtype
    assert pipe.vae.dtype == (torch.float32 if dtype == torch.float16 else dtype)


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        (
            {"dtpye": "float16"},
            TypeError,
            "'dtpye', which is not an argument; did you mean 'dtype'",
        ),
        ({"scheduler": None}, TypeError, "got 'scheduler'"),
        ({"dtype": "float17"}, ValueError, "dtype is 'float17'; choose auto or one of float32"),
        ({"dtype": "float16", "torch_dtype": "float32"}, ValueError, "give one of them"),
        ({"revision": "abc"}, ValueError, "revision 'abc' is of a hub repository"),
        ({"variant": "fp16"}, ValueError, "holds no variant 'fp16'; its variants are none"),
        ({"device_map": {"model": 0, "vae": "cpu"}}, ValueError, "stays on one device"),
        ({"device_map": "cuda:77"}, ValueError, "no device 'cuda:77'"),
        ({"use_safetensors": False}, ValueError, "pickles are never read"),
    ],
)
@pytest.mark.parametrize("door", [load, janusflow.load])
def test_what_nothing_takes_is_refused_by_name(tiny_folder, door, given, kind, message):
    with pytest.raises(kind, match=message):
        door(tiny_folder, **given)


def test_a_device_map_places_the_pipeline(tiny_folder):
    for device_map in ("cpu", "auto", "balanced", {"": "cpu"}, torch.device("cpu")):
        assert load(tiny_folder, device_map=device_map).device.type in ("cpu", "cuda", "mps")


def test_variants_are_written_and_read_both_ways(tiny_pipe, tmp_path):
    tiny_pipe.save_pretrained(tmp_path, variant="fp16")
    assert (tmp_path / "model.fp16.safetensors").exists()
    assert (tmp_path / "vae" / "diffusion_pytorch_model.fp16.safetensors").exists()
    assert torch.equal(first(load(tmp_path, variant="fp16")), first(tiny_pipe))
    with pytest.raises(ValueError, match="no weights without a variant; its variants are 'fp16'"):
        load(tmp_path)
    tiny_pipe.save_pretrained(tmp_path, variant="fp16", max_shard_size="1MB")
    assert torch.equal(first(load(tmp_path, variant="fp16")), first(tiny_pipe))


def test_a_save_over_an_older_one_is_what_is_read(two, tmp_path):
    _, old, new = two
    for before, after in (({"max_shard_size": "1MB"}, {}), ({}, {"max_shard_size": "1MB"})):
        folder = tmp_path / "out"
        old.save_pretrained(folder, **before)
        new.save_pretrained(folder, **after)
        assert torch.equal(first(load(folder)), first(new))
        shutil.rmtree(folder)


def test_checksums_do_not_outlive_what_they_are_of(copied, tiny_pipe):
    (copied / "SHA256SUMS").write_text(f"{'0' * 64}  model.safetensors\n")
    with pytest.raises(ValueError, match="differs from the file"):
        load(copied)
    tiny_pipe.save_pretrained(copied)
    assert torch.equal(first(load(copied)), first(tiny_pipe))


def test_components_and_from_pipe_keep_the_grids_and_the_weights(tiny_pipe):
    grid = object()
    tiny_pipe.grids = {"draft": grid}
    try:
        for pipe in (
            JanusFlowPipeline(**tiny_pipe.components),
            JanusFlowPipeline.from_pipe(tiny_pipe),
        ):
            assert pipe.grids["draft"] is grid and pipe.model is tiny_pipe.model
    finally:
        tiny_pipe.grids = {}
    with pytest.raises(TypeError, match="got 'torch_dtype'"):
        JanusFlowPipeline.from_pipe(tiny_pipe, torch_dtype=torch.bfloat16)
    with pytest.raises(TypeError, match="from_pipe got JanusFlowPipeline; expected a JanusPro"):
        janusflow.JanusProPipeline.from_pipe(tiny_pipe)
    assert tiny_pipe.model.dtype == torch.float32


def test_a_scheduler_is_refused_in_a_sentence(tiny_pipe):
    with pytest.raises(AttributeError, match=r"has no scheduler; choose a solver.*sampler='heun'"):
        tiny_pipe.scheduler = object()


# The autoencoder


@pytest.mark.parametrize(
    ("vae", "message"),
    [
        (lambda: kl(channels=4), "makes 4 channels, the network takes 16"),
        (lambda: kl(blocks=3), "a latent of 4 x 4 pixels, the network takes 8 x 8"),
        (lambda: PatchAutoencoder(16, patch_size=16), "a latent of 16 x 16 pixels"),
    ],
)
def test_an_autoencoder_of_another_model_is_refused_at_once(tiny_pipe, tiny_folder, vae, message):
    with pytest.raises(ValueError, match=message):
        load(tiny_folder, vae=vae())
    with pytest.raises(ValueError, match=message):
        JanusFlowPipeline(tiny_pipe.model, tiny_pipe.processor, vae())


def test_an_autoencoder_inside_a_pipelines_folder_is_found(tiny_folder, tmp_path):
    kl().save_pretrained(tmp_path / "sdxl" / "vae")
    (tmp_path / "sdxl" / "model_index.json").write_text(json.dumps({}))
    assert isinstance(load(tiny_folder, vae=tmp_path / "sdxl").vae, AutoencoderKL)


def test_the_autoencoder_of_another_model_is_taken_and_a_model_without_one_is_named(
    tiny_folder, copied
):
    taken = load(tiny_folder, vae=copied).vae
    assert all(
        map(torch.equal, taken.state_dict().values(), load(tiny_folder).vae.state_dict().values())
    )
    shutil.rmtree(copied / "vae")
    with pytest.raises(ValueError, match="model' is a model of 'multi_modality', no autoencoder"):
        load(tiny_folder, vae=copied)


def test_the_autoencoder_never_goes_to_float16(tiny_folder):
    pipe = load(tiny_folder).to(torch.float16)
    assert (pipe.model.dtype, pipe.vae.dtype) == (torch.float16, torch.float32)
    assert load(tiny_folder).to("cpu", torch.float16).vae.dtype == torch.float32
    image = Image.new("RGB", (96, 96), "red")
    exact = pipe.encode(image)
    pipe.vae.to(torch.float16)  # by hand, as scripts do
    assert torch.allclose(pipe.encode(image), exact, atol=2e-2)
    assert pipe.encode(image).dtype == torch.float32 and pipe.vae.dtype == torch.float16


def test_mean_and_deviation_of_latents_count_both_ways():
    z = torch.randn(2, 4, 8, 8)
    vae = kl(4, scaling_factor=0.5, latents_mean=[0.0, 1, 2, 3], latents_std=[1.0, 2, 3, 4])
    mean, deviation = (torch.tensor(x).view(1, -1, 1, 1) for x in ([0.0, 1, 2, 3], [1.0, 2, 3, 4]))
    found = coding.from_code(vae, z)
    assert torch.allclose(found, (z - mean) / deviation * 0.5)
    assert torch.allclose(coding.to_code(vae, found), z, atol=1e-6)
    shifted = kl(4, scaling_factor=0.5, shift_factor=0.25)
    assert torch.allclose(coding.from_code(shifted, z), (z - 0.25) * 0.5)
    assert torch.allclose(coding.to_code(shifted, coding.from_code(shifted, z)), z, atol=1e-6)


def test_what_is_loaded_equals_what_was_saved_and_nothing_warns(tiny_pipe, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        tiny_pipe.save_pretrained(tmp_path)
        load(tmp_path)
    assert load_file(tmp_path / "model.safetensors")
