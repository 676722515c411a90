"""Converts the published layout of Janus and Janus-Pro to transformers': configuration and tensor
names.

The published configuration says only `VQ-16` about the VQ model; its sizes are read from the
tensors, so that smaller ones load too.
"""

import re
from collections.abc import Mapping

from torch import Tensor
from transformers import JanusConfig, JanusVisionConfig, JanusVQVAEConfig, LlamaConfig

from janusflow.models.janusflow.configuration import vision_sizes
from janusflow.models.janusflow.language import check_rope
from janusflow.utils.keywords import choice
from janusflow.utils.limits import whole

# Patterns of published names and what they become, tried in order; None leaves the tensor out.
VISION = r"^vision_model\.vision_tower\."
LAYER = r"model.vision_model.encoder.layers.\1."
VQ = r"^gen_vision_model\."
RENAMES: list[tuple[str, str | None]] = [
    (VISION + r"(attn_pool|head)\..*", None),  # a pooling head that nothing reads
    (VQ + r"quantize\.codebook_used$", None),  # a counter of training
    (VISION + r"pos_embed$", "model.vision_model.embeddings.position_embedding.weight"),
    (VISION + r"patch_embed\.proj\.", "model.vision_model.embeddings.patch_embedding."),
    (VISION + r"norm\.", "model.vision_model.post_layernorm."),
    (VISION + r"blocks\.(\d+)\.attn\.proj\.", LAYER + "self_attn.projection_layer."),
    (VISION + r"blocks\.(\d+)\.attn\.", LAYER + "self_attn."),
    (VISION + r"blocks\.(\d+)\.norm(\d)\.", LAYER + r"layer_norm\2."),
    (VISION + r"blocks\.(\d+)\.", LAYER),
    (VQ + r"encoder\.conv_blocks\.(\d+)\.res\.", r"model.vqmodel.encoder.down.\1.block."),
    (VQ + r"encoder\.conv_blocks\.", "model.vqmodel.encoder.down."),
    (VQ + r"decoder\.conv_blocks\.(\d+)\.res\.", r"model.vqmodel.decoder.up.\1.block."),
    (VQ + r"decoder\.conv_blocks\.", "model.vqmodel.decoder.up."),
    (VQ + r"(\w+)\.mid\.0\.", r"model.vqmodel.\1.mid.block_1."),
    (VQ + r"(\w+)\.mid\.1\.", r"model.vqmodel.\1.mid.attn_1."),
    (VQ + r"(\w+)\.mid\.2\.", r"model.vqmodel.\1.mid.block_2."),
    (VQ, "model.vqmodel."),
    (r"^gen_embed\.", "model.generation_embeddings."),
    (r"^gen_head\.output_mlp_projector\.", "model.generation_head.proj_out."),
    (r"^gen_head\.", "model.generation_head."),
    (r"^language_model\.model\.", "model.language_model."),
    (r"^language_model\.lm_head\.", "lm_head."),
]
VQ_16 = dict(  # LlamaGen's tokenizer with 16 x 16 pixels a code (Sun et al. 2024)
    base_channels=128,
    in_channels=3,
    out_channels=3,
    channel_multiplier=[1, 1, 2, 2, 4],
    num_res_blocks=2,
    latent_channels=256,
    num_embeddings=16384,
    embed_dim=8,
)
CLASSES = {  # of the published network, the only ones
    "aligner_config": "MlpProjector",
    "gen_aligner_config": "MlpProjector",
    "gen_head_config": "vision_head",
    "gen_vision_config": "VQ-16",
    "vision_config": "CLIPVisionTower",
}
ALIGNERS = {"gen_aligner": "generation_aligner", "aligner": "aligner"}


def rename(name: str) -> str | None:
    """Returns transformers' name of a published tensor, or None for one that is not needed."""
    part, _, rest = name.partition(".layers.")
    if part in ALIGNERS:
        return f"model.{ALIGNERS[part]}.{_aligner(rest)}"
    for pattern, new in RENAMES:
        if re.match(pattern, name):
            return None if new is None else re.sub(pattern, new, name)
    return name


def _aligner(rest: str) -> str:
    """Returns `0.weight`, `2.weight`, ... of linears between GELUs, or one linear's `weight`."""
    if not rest[:1].isdigit():
        return f"fc1.{rest}"
    place, kind = rest.split(".", 1)
    index = int(place) // 2
    return f"fc1.{kind}" if index == 0 else f"hidden_layers.{index - 1}.{kind}"


def convert(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors with transformers' names; query, key and value are separated."""
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        new = rename(name)
        if new is None:
            continue
        if ".self_attn.qkv." in new:
            if value.ndim == 0 or not value.shape[0] or value.shape[0] % 3:
                raise ValueError(
                    f"{name} has shape {tuple(value.shape)}, which does not divide into three "
                    "equal parts; check the checkpoint"
                )
            for kind, part in zip("qkv", value.chunk(3), strict=True):
                found[new.replace("qkv", f"{kind}_proj")] = part
        else:
            found[new] = value.squeeze(0) if name.endswith(".pos_embed") else value
    return found


def config(
    published: Mapping, tensors: Mapping[str, Tensor] | None, image_token: int
) -> JanusConfig:
    """Returns the configuration of a published folder. Raises ValueError if it is invalid.

    Without `tensors` the VQ model has the published sizes, and the codes that config.json names.
    `image_token` is the placeholder's id in the folder's own tokenizer. The output head is a matrix
    of its own; transformers' default would tie it to the embedding.
    """
    vision = vision_sizes(published.get("vision_config"), "vision_config")
    aligner, generator = (
        _params(published, "aligner_config"),
        _params(published, "gen_aligner_config"),
    )
    head = _params(published, "gen_head_config")
    width = generator["n_embed"]
    if head.get("image_token_embed", width) != width:
        raise ValueError(
            f"gen_head_config.image_token_embed is {head['image_token_embed']} and "
            f"gen_aligner_config.n_embed {width}, and transformers needs them equal; check "
            "config.json"
        )
    try:
        made = JanusConfig(
            text_config=_language(published.get("language_config")),
            vision_config=JanusVisionConfig(
                hidden_size=vision.width,
                num_hidden_layers=vision.layers,
                num_attention_heads=vision.heads,
                mlp_ratio=vision.mlp_ratio,
                image_size=vision.image_size,
                patch_size=vision.patch_size,
                num_image_tokens=vision.tokens,
                projection_dim=aligner["n_embed"],
                depth=_depth(aligner),
            ),
            vq_config=JanusVQVAEConfig(
                **(_vq_said(published) if tensors is None else vq_sizes(tensors)),
                projection_dim=width,
                num_hidden_layers=_depth(generator),
                image_token_embed_dim=head.get("n_embed", width),
            ),
            image_token_id=image_token,
            tie_word_embeddings=False,
        )
    except ValueError:
        raise
    except Exception as error:  # transformers' validators raise classes of their own
        reason = " ".join(str(error).split())
        raise ValueError(
            f"config.json does not describe a Janus ({reason}); check the folder"
        ) from error
    within_limits(made)
    _check_said(published, made)
    return made


def _told(published: Mapping, name: str) -> Mapping:
    """Returns the parameters of a block, empty where config.json has none."""
    block = published.get(name)
    params = block.get("params") if isinstance(block, Mapping) else None
    return params if isinstance(params, Mapping) else {}


def _vq_said(published: Mapping) -> dict:
    """Returns the VQ model's sizes as far as config.json tells them."""
    params = _told(published, "gen_vision_config")
    names = {"num_embeddings": "image_token_size", "embed_dim": "n_embed"}
    return VQ_16 | {ours: params[name] for ours, name in names.items() if name in params}


def _check_said(published: Mapping, made: JanusConfig) -> None:
    """Raises ValueError for a block of another kind or size than the network that is built."""
    for name, kind in CLASSES.items():
        block = published.get(name)
        if isinstance(block, Mapping):
            choice(f"{name}.cls in config.json is", block.get("cls", kind), (kind,))
    vq = made.vq_config
    for name, key, size in (
        ("gen_vision_config", "image_token_size", vq.num_embeddings),
        ("gen_vision_config", "n_embed", vq.embed_dim),
        ("gen_head_config", "image_token_size", vq.num_embeddings),
        ("gen_aligner_config", "input_dim", vq.embed_dim),
        ("aligner_config", "input_dim", made.vision_config.hidden_size),
    ):
        params = _told(published, name)
        if params.get(key, size) != size:
            raise ValueError(
                f"{name}.params.{key} is {params[key]!r:.40} in config.json and {size} in the rest "
                "of the checkpoint; take both from one folder"
            )


def within_limits(config: JanusConfig) -> None:
    """Raises ValueError for a size that is not a whole number from 1 to the limit in
    utils/limits.py.

    This is checked before a network is built: a million layers take hours even without memory.
    """
    text, vision, vq = config.text_config, config.vision_config, config.vq_config
    for limit, name, value in (
        ("layers", "the language model's number of layers", text.num_hidden_layers),
        ("width", "the language model's hidden_size", text.hidden_size),
        ("mlp_width", "the language model's intermediate_size", text.intermediate_size),
        ("vocabulary", "the language model's vocab_size", text.vocab_size),
        ("width", "the language model's number of heads", text.num_attention_heads),
        ("width", "the language model's number of key heads", text.num_key_value_heads),
        ("layers", "the vision encoder's number of layers", vision.num_hidden_layers),
        ("width", "the vision encoder's number of heads", vision.num_attention_heads),
        ("width", "the vision encoder's hidden size", vision.hidden_size),
        ("layers", "the aligner's depth", vision.depth),
        ("width", "the aligner's n_embed", vision.projection_dim),
        ("layers", "the image aligner's depth", vq.num_hidden_layers),
        ("width", "the image aligner's n_embed", vq.projection_dim),
        ("width", "the VQ model's number of base channels", vq.base_channels),
        ("vocabulary", "the number of codes", vq.num_embeddings),
    ):
        whole(value, name, limit)
    check_rope(text)


def vq_sizes(tensors: Mapping[str, Tensor]) -> dict:
    """Returns the arguments of JanusVQVAEConfig from the shapes of `gen_vision_model.*`."""
    root = "gen_vision_model."

    def shape(name: str, dimensions: int = 4) -> tuple[int, ...]:
        if root + name not in tensors:
            raise ValueError(
                f"the weights lack {root + name}; check that this is a Janus checkpoint"
            )
        found = tuple(tensors[root + name].shape)
        if len(found) != dimensions or 0 in found:
            raise ValueError(
                f"{root + name} has shape {found}; expected {dimensions} dimensions, none of them 0"
            )
        return found

    def count(prefix: str) -> int:
        places = {
            n[len(root + prefix) :].split(".")[0] for n in tensors if n.startswith(root + prefix)
        }
        return len(places)

    base, colors = shape("encoder.conv_in.weight")[:2]
    levels = count("encoder.conv_blocks.")
    blocks = count("encoder.conv_blocks.0.res.")
    last = [f"encoder.conv_blocks.{i}.res.{blocks - 1}.conv2.weight" for i in range(levels)]
    codes, width = shape("quantize.embedding.weight", 2)
    return dict(
        base_channels=base,
        in_channels=colors,
        out_channels=shape("decoder.conv_out.weight")[0],
        channel_multiplier=[shape(name)[0] // base for name in last],
        num_res_blocks=blocks,
        latent_channels=shape("encoder.conv_out.weight")[0],
        num_embeddings=codes,
        embed_dim=width,
    )


def _params(published: Mapping, name: str) -> dict:
    block = published.get(name)
    params = block.get("params") if isinstance(block, Mapping) else None
    if not isinstance(params, dict):
        raise ValueError(f"config.json has no {name}.params; check that this is a Janus checkpoint")
    if name != "gen_head_config" and "n_embed" not in params:
        raise ValueError(
            f"config.json has no {name}.params.n_embed; check that this is a Janus checkpoint"
        )
    return params


def _depth(params: Mapping) -> int:
    kind = params.get("projector_type", "mlp_gelu")
    choice("projector_type in config.json is", kind, ("linear", "mlp_gelu"))
    return 1 if kind == "linear" else params.get("depth", 1)


def _language(block: Mapping | None) -> LlamaConfig:
    """Returns the Llama configuration, with LlamaConfig's defaults, as the authors do."""
    if not isinstance(block, Mapping) or block.get("model_type", "llama") != "llama":
        raise ValueError(
            "language_config in config.json is not of a Llama; check that this is a Janus "
            "checkpoint"
        )
    skipped = ("model_type", "torch_dtype", "dtype", "_attn_implementation")
    settings = {key: value for key, value in block.items() if key not in skipped}
    ids = dict(bos_token_id=None, eos_token_id=None, pad_token_id=None)  # the tokenizer's business
    return LlamaConfig(**{**settings, **ids, "tie_word_embeddings": False})
