"""A tiny Janus-Pro with random weights, in the published layout and in transformers' own.

The names of the published layout are written down here once more, by listing the modules of the
published network, independently of the patterns in `janusflow.models.janus_pro.convert`.
"""

import json
from pathlib import Path

import torch
from transformers import (
    JanusConfig,
    JanusForConditionalGeneration,
    JanusVisionConfig,
    JanusVQVAEConfig,
    LlamaConfig,
)

from janusflow.models.janusflow.tokenizer import build_tokenizer
from janusflow.scenes.questions import vocabulary

SIDE, PATCH, HIDDEN, CODES = 64, 16, 48, 96
VISION = dict(width=32, layers=2, heads=2)
LANGUAGE = dict(
    hidden_size=HIDDEN,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=4,
    vocab_size=700,
    max_position_embeddings=1024,
)


def model(side: int = SIDE, seed: int = 0) -> JanusForConditionalGeneration:
    """transformers' class with loud random weights."""
    torch.manual_seed(seed)
    config = JanusConfig(
        text_config=LlamaConfig(
            **LANGUAGE, bos_token_id=None, eos_token_id=None, tie_word_embeddings=False
        ),
        vision_config=JanusVisionConfig(
            hidden_size=VISION["width"],
            num_hidden_layers=VISION["layers"],
            num_attention_heads=VISION["heads"],
            image_size=side,
            patch_size=PATCH,
            num_image_tokens=(side // PATCH) ** 2,
            projection_dim=HIDDEN,
        ),
        vq_config=JanusVQVAEConfig(
            embed_dim=8,
            num_embeddings=CODES,
            latent_channels=16,
            base_channels=32,
            channel_multiplier=[1, 1, 1, 1, 2],
            num_res_blocks=1,
            projection_dim=HIDDEN,
            image_token_embed_dim=HIDDEN,
        ),
        image_token_id=3,
        tie_word_embeddings=False,
    )
    made = JanusForConditionalGeneration(config).eval()
    for name, parameter in made.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=1.5 * parameter[0].numel() ** -0.5)
        else:
            torch.nn.init.normal_(parameter, mean=float(name.endswith("norm.weight")), std=0.1)
    return made


def published_tensors(made: JanusForConditionalGeneration) -> dict[str, torch.Tensor]:
    """The same weights under the published names."""
    own = made.state_dict()
    out = {}

    def both(new: str, old: str) -> None:
        for kind in ("weight", "bias"):
            if f"{old}.{kind}" in own:
                out[f"{new}.{kind}"] = own[f"{old}.{kind}"]

    tower, there = "vision_model.vision_tower", "model.vision_model"
    out[f"{tower}.pos_embed"] = own[f"{there}.embeddings.position_embedding.weight"][None]
    both(f"{tower}.patch_embed.proj", f"{there}.embeddings.patch_embedding")
    both(f"{tower}.norm", f"{there}.post_layernorm")
    for i in range(VISION["layers"]):
        block, layer = f"{tower}.blocks.{i}", f"{there}.encoder.layers.{i}"
        for kind in ("weight", "bias"):
            parts = [own[f"{layer}.self_attn.{x}_proj.{kind}"] for x in "qkv"]
            out[f"{block}.attn.qkv.{kind}"] = torch.cat(parts)
        both(f"{block}.attn.proj", f"{layer}.self_attn.projection_layer")
        for part, other in (("norm1", "layer_norm1"), ("norm2", "layer_norm2")):
            both(f"{block}.{part}", f"{layer}.{other}")
        both(f"{block}.mlp.fc1", f"{layer}.mlp.fc1")
        both(f"{block}.mlp.fc2", f"{layer}.mlp.fc2")
    out[f"{tower}.attn_pool.latent"] = torch.zeros(1, 1, VISION["width"])
    both("aligner.layers.0", "model.aligner.fc1")
    both("aligner.layers.2", "model.aligner.hidden_layers.0")
    both("gen_aligner.layers.0", "model.generation_aligner.fc1")
    both("gen_aligner.layers.2", "model.generation_aligner.hidden_layers.0")
    both("gen_embed", "model.generation_embeddings")
    both("gen_head.output_mlp_projector", "model.generation_head.proj_out")
    both("gen_head.vision_head", "model.generation_head.vision_head")
    both("language_model.lm_head", "lm_head")
    for name in own:
        if name.startswith("model.language_model."):
            out[name.replace("model.language_model.", "language_model.model.")] = own[name]
    out |= _vq(own)
    return out


def _vq(own: dict) -> dict[str, torch.Tensor]:
    out = {"gen_vision_model.quantize.codebook_used": torch.zeros(65536)}
    parts = {"down": "conv_blocks", "up": "conv_blocks", "block": "res"}
    mid = {"block_1": "0", "attn_1": "1", "block_2": "2"}
    for name, value in own.items():
        words = name.split(".")
        if words[:2] != ["model", "vqmodel"]:
            continue
        words = [parts.get(word, mid.get(word, word)) for word in words[2:]]
        out[".".join(["gen_vision_model", *words])] = value
    return out


def published_config(side: int = SIDE) -> dict:
    """config.json with the published keys."""
    linear = dict(cls="MlpProjector", model_type="aligner")
    return {
        "architectures": ["MultiModalityCausalLM"],
        "model_type": "multi_modality",
        "torch_dtype": "bfloat16",
        "language_config": LANGUAGE | {"model_type": "llama", "torch_dtype": "bfloat16"},
        "vision_config": {
            "cls": "CLIPVisionTower",
            "model_type": "vision",
            "params": {
                "image_size": side,
                "model_name": "siglip_tiny",
                "select_feature": "same",
                "select_layer": -1,
                **VISION,
            },
        },
        "aligner_config": linear
        | {"params": dict(depth=2, input_dim=32, n_embed=HIDDEN, projector_type="mlp_gelu")},
        "gen_aligner_config": linear
        | {"params": dict(depth=2, input_dim=8, n_embed=HIDDEN, projector_type="mlp_gelu")},
        "gen_head_config": {
            "cls": "vision_head",
            "model_type": "gen_head",
            "params": dict(image_token_embed=HIDDEN, image_token_size=CODES, n_embed=HIDDEN),
        },
        "gen_vision_config": {
            "cls": "VQ-16",
            "model_type": "gen_vision",
            "params": dict(image_token_size=CODES, n_embed=8),
        },
    }


def write_published(
    folder: Path, made: JanusForConditionalGeneration, side: int = SIDE, sft: str = "deepseek"
) -> Path:
    """A folder as the authors': config.json, pytorch_model.bin, tokenizer and processor."""
    build_tokenizer(
        folder,
        [*vocabulary(), "User", "Assistant"],
        image_size=side,
        num_image_tokens=(side // PATCH) ** 2,
        sft_format=sft,
    )
    path = folder / "processor_config.json"
    content = json.loads(path.read_text())
    for key in ("image_start_tag", "image_end_tag", "image_gen_tag"):
        del content[key]  # the published file has none; the defaults are the class's
    path.write_text(json.dumps(content))
    (folder / "config.json").write_text(json.dumps(published_config(side)))
    torch.save(published_tensors(made), folder / "pytorch_model.bin")
    return folder
