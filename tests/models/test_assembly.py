"""Models put together from other language models, vision encoders and autoencoders, all tiny."""

import json
import shutil

import diffusers
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Siglip2Config,
    Siglip2Model,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from janusflow import JanusFlowModel, JanusFlowPipeline
from janusflow.data.preparation import conversation
from janusflow.data.samples import Sample
from janusflow.models.janusflow.assembly import Adapters, assemble

EOS = "<|im_end|>"
SIZES = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4)
TOWER = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2)
BLOCKS = dict(block_out_channels=(8, 8, 8, 8), norm_num_groups=4, layers_per_block=1)
LEVELS = dict(
    down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4
)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """name -> folder of a part, made when it is asked for."""
    root, made = tmp_path_factory.mktemp("parts"), {}

    def part(name: str):
        if name not in made:
            torch.manual_seed(0)
            made[name] = root / name
            PARTS[name](made[name])
        return made[name]

    return part


def tokenizer(folder) -> int:
    """A ByteLevel tokenizer as Qwen's: an end, no beginning, no tags of images."""
    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        special_tokens=["<|endoftext|>", EOS], initial_alphabet=alphabet, show_progress=False
    )
    tokens.train_from_iterator(["a red circle", "User: what is it?"], trainer)
    tokens.save(str(folder / "tokenizer.json"))
    named = f'{{"bos_token": null, "eos_token": "{EOS}", "pad_token": "<|endoftext|>"}}'
    (folder / "tokenizer_config.json").write_text(named)
    return tokens.get_vocab_size()


def qwen3(folder):
    folder.mkdir()
    size = tokenizer(folder) + 40  # rows to spare, as the published ones have
    config = Qwen3Config(vocab_size=size, num_key_value_heads=2, head_dim=24, **SIZES)
    Qwen3ForCausalLM(config).save_pretrained(folder)


def smollm2(folder):
    folder.mkdir()
    config = LlamaConfig(
        vocab_size=tokenizer(folder), num_key_value_heads=2, tie_word_embeddings=True, **SIZES
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def siglip2(folder):
    vision = dict(TOWER, num_patches=16, patch_size=16)
    text = dict(TOWER, vocab_size=50, max_position_embeddings=8)
    ids = dict(bos_token_id=0, eos_token_id=1, pad_token_id=1)
    config = Siglip2Config(vision_config=vision, text_config=text | ids)
    Siglip2Model(config).save_pretrained(folder)


def siglip(folder):
    config = SiglipVisionConfig(**TOWER, image_size=64, patch_size=16)
    SiglipVisionModel(config).save_pretrained(folder)


def vit(folder):
    """As timm's folders on the hub are."""
    import timm
    from safetensors.torch import save_file

    folder.mkdir()
    tower = timm.create_model("test_vit", img_size=64, num_classes=0)
    save_file(tower.state_dict(), folder / "model.safetensors")
    told = dict(architecture="test_vit", pretrained_cfg=dict(input_size=[3, 64, 64]))
    (folder / "config.json").write_text(json.dumps(told))


def kl(channels: int, **more):
    def make(folder):
        settings = dict(latent_channels=channels, **BLOCKS, **LEVELS, **more)
        diffusers.AutoencoderKL(**settings).save_pretrained(folder)

    return make


def wan(kind: str):
    def make(folder):
        sizes = dict(base_dim=8, dim_mult=[1, 2, 2, 2], num_res_blocks=1)
        films = dict(z_dim=16, temperal_downsample=[False] * 3)
        getattr(diffusers, kind)(**sizes, **films).save_pretrained(folder)

    return make


def flux2(folder):
    vae = diffusers.AutoencoderKLFlux2(latent_channels=8, **BLOCKS, **LEVELS)
    vae.bn.running_mean += 0.3
    vae.bn.running_var *= 4
    vae.save_pretrained(folder)


def dc(folder):
    wide, two = (32, 64), ("ResBlock", "ResBlock")
    diffusers.AutoencoderDC(
        latent_channels=32,
        encoder_block_types=two,
        decoder_block_types=two,
        encoder_block_out_channels=wide,
        decoder_block_out_channels=wide,
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
        scaling_factor=0.4,
    ).save_pretrained(folder)


PARTS = {
    "qwen3": qwen3,
    "smollm2": smollm2,
    "siglip2": siglip2,
    "siglip": siglip,
    "timm": vit,
    "kl4": kl(4),
    "kl16": kl(16, shift_factor=0.1, scaling_factor=0.36),
    "kl32": kl(32),
    "wan": wan("AutoencoderKLWan"),
    "qwen-image": wan("AutoencoderKLQwenImage"),
    "flux2": flux2,
    "dc": dc,
}


def train(pipe, steps: int) -> list[float]:
    """Steps on one image to make and one question, by the loss that the trainer takes."""
    from janusflow.models.janusflow.packed_forward import forward

    torch.manual_seed(0)
    side = pipe.model.config.vision.image_size
    image = Image.new("RGB", (side, side), "red")
    latents = pipe.encode(image)
    talk = [{"role": "user", "content": "what is it?"}, {"role": "assistant", "content": "red"}]
    processor = pipe.processor
    ids, labels, places = conversation(processor, talk, 1)
    pixels = processor.image_processor([image])
    samples = [
        Sample(
            kind="generation",
            input_ids=processor.prompt("red")["input_ids"][0],
            pixel_values=pixels,
            latents=latents[0],
        ),
        Sample(
            kind="understanding",
            input_ids=ids,
            pixel_values=pixels,
            image_token_mask=places,
            labels=labels,
        ),
    ]
    model = pipe.model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 3e-3)
    noise, losses = torch.randn_like(latents), []
    for _ in range(steps):
        t = torch.rand(1)
        x = (1 - t) * noise + t * latents
        out = forward(model, samples, x, t)
        loss = (out.velocity - (latents - noise)).square().mean() + out.next_token().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    model.eval()
    return losses


@pytest.mark.parametrize(
    ("language", "vision", "vae"),
    [("qwen3", "siglip2", "kl16"), ("smollm2", "siglip", "kl32"), ("qwen3", "timm", "dc")],
)
def test_a_model_of_foreign_parts_trains_saves_loads_samples_and_answers(
    parts, tmp_path, language, vision, vae
):
    assemble(parts(language), parts(vision), parts(vae), tmp_path / "model")
    pipe = JanusFlowPipeline.from_pretrained(tmp_path / "model")
    pipe.set_progress_bar_config(disable=True)
    losses = train(pipe, 20)
    assert losses[-1] < 0.7 * losses[0]
    pipe.save_pretrained(tmp_path / "again")
    again = JanusFlowPipeline.from_pretrained(tmp_path / "again")
    again.set_progress_bar_config(disable=True)
    one, two = (
        p("a red circle", num_inference_steps=2, generator=torch.Generator().manual_seed(1))
        for p in (pipe, again)
    )
    side = pipe.model.config.vision.image_size
    assert one.images[0].size == (side, side)
    assert one.images[0].tobytes() == two.images[0].tobytes()
    image = Image.new("RGB", (side, side), "red")
    assert pipe.chat("what is it?", [image]) == again.chat("what is it?", [image])


def test_the_parts_keep_their_weights_and_what_they_compute(parts, tmp_path):
    assemble(parts("smollm2"), parts("siglip2"), parts("kl4"), tmp_path)
    model = JanusFlowModel.from_pretrained(tmp_path)
    spoken = LlamaForCausalLM.from_pretrained(parts("smollm2"))
    ids = torch.tensor([[7, 9, 11]])
    with torch.no_grad():
        ours = model(ids).logits[..., : spoken.config.vocab_size]
        assert torch.allclose(ours, spoken(ids).logits, atol=1e-5)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    seen = Siglip2Model.from_pretrained(parts("siglip2")).vision_model
    pixels = torch.randn(1, 3, 64, 64)
    flat = pixels.unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 4, 5, 1).reshape(1, 16, -1)
    told = dict(
        pixel_values=flat,
        pixel_attention_mask=torch.ones(1, 16),
        spatial_shapes=torch.tensor([[4, 4]]),
    )
    with torch.no_grad():
        expected = seen(**told).last_hidden_state
        assert torch.allclose(model.vision_und_enc_model(pixels), expected, atol=1e-5)


def test_a_prompts_cache_serves_a_foreign_language_model(parts, tmp_path):
    """Qwen3's blocks see the prompt's keys as if the whole sequence had been read at once."""
    assemble(parts("qwen3"), parts("siglip"), parts("kl4"), tmp_path)
    model = JanusFlowModel.from_pretrained(tmp_path).double()
    for weight in model.vision_gen_dec_model.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    latents, t = torch.randn(1, 4, 8, 8).double(), torch.tensor([0.4]).double()
    ids = torch.tensor([[3, 9, 11, 5]])
    with torch.no_grad():
        v = model.velocity(latents, t, model.encode_prompt(ids))
        features, times, sequence = model.enter(latents, t)
        whole = torch.cat([model.get_input_embeddings()(ids), sequence], dim=1)
        hidden = model.language_model.model(inputs_embeds=whole).last_hidden_state[:, 4:]
        assert torch.allclose(v, model.leave(hidden, features, times), atol=1e-6)


@pytest.mark.parametrize("name", ["wan", "qwen-image", "flux2", "dc", "kl16"])
def test_autoencoders_code_images_with_their_own_statistics(parts, name, tmp_path):
    from janusflow.models import latents
    from janusflow.models.autoencoder_loading import load_vae

    vae = load_vae(parts(name), parts(name))
    pixels = torch.randn(1, 3, 64, 64).clamp(-1, 1)
    with torch.no_grad():
        z = latents.encode(vae, pixels)
        back = latents.decode(vae, z)
    factor = latents.pixels_per_latent(vae)
    assert z.shape == (1, vae.config.latent_channels, 64 // factor, 64 // factor)
    assert back.shape == pixels.shape
    vae.save_pretrained(tmp_path)
    again = load_vae(tmp_path, tmp_path)
    with torch.no_grad():
        assert torch.equal(latents.encode(again, pixels), z)
    if name == "flux2":
        raw = vae.inner.encode(pixels).latent_dist.mode()
        folded = torch.nn.functional.pixel_unshuffle(raw, 2)
        expected = (folded - 0.3) / (4 + vae.inner.config.batch_norm_eps) ** 0.5
        assert torch.allclose(z, expected, atol=1e-5)


def test_a_part_that_does_not_fit_is_named(parts, tmp_path):
    with pytest.raises(ValueError, match=r"no causal language model|not a valid causal"):
        assemble(parts("siglip"), parts("siglip"), parts("kl4"), tmp_path)
    with pytest.raises(ValueError, match=r"vision encoder|lacks"):
        assemble(parts("qwen3"), parts("kl4"), parts("kl4"), tmp_path)
    with pytest.raises(ValueError, match=r"\d"):
        adapters = Adapters(patch=3)
        assemble(parts("qwen3"), parts("siglip"), parts("kl4"), tmp_path, adapters)


def test_the_command_assembles_a_folder(janusflow, parts, tmp_path):
    words = ["--language-model", parts("qwen3"), "--vision", parts("siglip2")]
    code, out, err = janusflow("assemble", *words, "--vae", parts("kl4"), "-o", tmp_path / "m")
    assert code == 0, err
    assert "parameters" in out
    code, _, err = janusflow("assemble", *words, "--vae", parts("kl4"), "-o", tmp_path / "m")
    assert code != 0 and "not an empty folder" in err


def test_a_language_model_that_its_weights_do_not_fill_is_refused_before_it_is_built(
    parts, tmp_path
):
    folder = shutil.copytree(parts("smollm2"), tmp_path / "language")
    (folder / "config.json").write_text('{"model_type": "llama"}')  # seven billion, by default
    with pytest.raises(ValueError, match=r"describes .* parameters, its weight files hold"):
        assemble(folder, parts("siglip"), parts("kl4"), tmp_path / "out")


def test_a_part_that_names_code_is_refused(parts, tmp_path):
    folder = shutil.copytree(parts("smollm2"), tmp_path / "language")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"attn_implementation": "a/kernel"}))
    with pytest.raises(ValueError, match="'attn_implementation', which is not taken from a file"):
        assemble(folder, parts("siglip"), parts("kl4"), tmp_path / "out")
