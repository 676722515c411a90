"""Assembles a new JanusFlow from a pretrained language model, vision encoder and autoencoder.

The aligners and the generation encoder and decoder between them are initialised at random, as in
the first stage of the paper (Ma et al. 2024, section 3.3).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedConfig

from janusflow.models import latents
from janusflow.models.autoencoder_loading import load_vae
from janusflow.models.janusflow.configuration import JanusFlowConfig
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.janusflow.processing import JanusFlowProcessor
from janusflow.models.janusflow.tokenizer import BOS, IMAGE, IMAGE_END, IMAGE_GEN, IMAGE_START, PAD
from janusflow.models.processor_files import ProcessorFiles, parse_tokenizer, token_text
from janusflow.utils.checkpoint_files import check_setting, check_size, stored
from janusflow.utils.safe_io import parse_object, read_object, read_optional, read_text
from janusflow.utils.text import explained

CHECK = "check its config.json"
TOKEN_PIXELS = 16  # that an image's token stands for, and side, as in the published models


@dataclass(frozen=True, kw_only=True)
class Adapters:
    """Sizes of the new parts; None takes the published proportion."""

    channels: int | None = None  # of the generation encoder; 3/8 of the language model's width
    layers: int = 2  # ConvNeXt blocks in the generation encoder, and in the decoder
    patch: int | None = None  # latents per token and side; 16 pixels a token
    image_size: int | None = None  # pixels; the vision encoder's own
    seed: int = 0  # of the fresh weights


def assemble(
    language: Path, vision: Path, vae: Path, out: Path, adapters: Adapters | None = None
) -> JanusFlowModel:
    """Writes a model folder with the weights of the three parts, new adapters and a processor.

    Raises ValueError for a part that is missing, has no tokenizer, or is of an unsupported kind.
    """
    adapters = adapters or Adapters()
    autoencoder = load_vae(vae, vae)
    spoken = _language_model(language)
    seen, params = _vision_encoder(vision, adapters.image_size)
    config = _configuration(spoken.config, params, autoencoder, adapters)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(adapters.seed)
        model = JanusFlowModel(config).eval()
        model.language_model.load_state_dict(spoken.state_dict())
        model.vision_und_enc_model.vision_tower.load_state_dict(seen.state_dict())
        processor = JanusFlowProcessor(_processor_files(language, vision, config))
        if len(processor.tokenizer) > config.language_config.vocab_size:
            model.resize_token_embeddings(len(processor.tokenizer))
    model.save_pretrained(out)
    processor.save_pretrained(out)
    autoencoder.save_pretrained(out / "vae")
    return model


def _language_model(folder: Path) -> nn.Module:
    """Loads a causal LM in float32. Raises ValueError for others or missing weights."""
    _check_part(folder)
    with explained(f"{str(folder)!r} is not a valid causal language model", CHECK):
        _check_memory(AutoModelForCausalLM, folder)
        model, told = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    _whole(folder, told)
    return model


def _check_part(folder: Path) -> dict:
    """Returns a part's config.json. Raises ValueError for weights that are missing or damaged, and
    for a setting that loads code or files.
    """
    stored(folder)
    content = read_object(folder / "config.json")
    waiting = [content]
    while waiting:
        for key, value in waiting.pop().items():
            check_setting(str(key), value, "config.json")
            waiting += [value] if isinstance(value, Mapping) else []
    return content


def _check_memory(kind: type, folder: Path) -> None:
    """Raises ValueError if config.json describes many more parameters than the weights hold."""
    with torch.device("meta"):
        model = kind.from_config(AutoConfig.from_pretrained(folder))
    check_size(sum(p.numel() for p in model.parameters()), folder)


def _vision_encoder(folder: Path, image_size: int | None) -> tuple[nn.Module, dict]:
    """Loads a vision encoder in float32, with the `params` that describe it in config.json."""
    content = _check_part(folder)
    faults = (OSError, RuntimeError, KeyError, AttributeError, AssertionError)
    with explained(f"{str(folder)!r} is not a valid vision encoder", CHECK, *faults):
        if "architecture" in content:
            return _of_timm(folder, content, image_size)
        return _of_transformers(folder, image_size)


def _of_timm(folder: Path, content: Mapping, image_size: int | None) -> tuple[nn.Module, dict]:
    import timm
    from safetensors.torch import load_file

    name = content["architecture"]
    if not isinstance(name, str) or not timm.is_model(name):
        raise ValueError(f"timm has no model {name!r:.60}; see timm.list_models()")
    size = image_size or content.get("pretrained_cfg", content).get("input_size", [3, 224, 224])[-1]
    with torch.device("meta"):
        counted = timm.create_model(name, img_size=size, num_classes=0, pretrained=False)
    check_size(sum(p.numel() for p in counted.parameters()), folder)
    tower = timm.create_model(name, img_size=size, num_classes=0, pretrained=False)
    found = tower.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    _whole(folder, dict(missing_keys=found.missing_keys))
    grid = tower.patch_embed
    sizes = dict(
        image_size=size,
        patch_size=grid.patch_size[0],
        width=tower.embed_dim,
        layers=len(tower.blocks),
        heads=tower.blocks[0].attn.num_heads,
    )
    return tower, dict(library="timm", model_name=name, **sizes)


def _of_transformers(folder: Path, image_size: int | None) -> tuple[nn.Module, dict]:
    with explained(f"{str(folder)!r} is not a valid vision encoder", CHECK):
        _check_memory(AutoModel, folder)
        model, told = AutoModel.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    _whole(folder, told)
    tower = getattr(model, "vision_model", model)  # of a model with a text encoder beside it
    config = tower.config
    size = image_size or getattr(config, "image_size", None) or _native_size(folder, config)
    sizes = dict(
        image_size=size,
        patch_size=config.patch_size,
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
    )
    settings = {k: v for k, v in config.to_dict().items() if k not in ("dtype", "architectures")}
    return _built(tower, settings), dict(library="transformers", config=settings, **sizes)


def _built(tower: nn.Module, settings: dict) -> nn.Module:
    """Builds the class that AutoModel chooses for the settings, with the tower's weights.

    A complete CLIP or SigLIP stores its vision tower without the outermost wrapper of that class.
    """
    rest = {k: v for k, v in settings.items() if k != "model_type"}
    whole = AutoModel.from_config(AutoConfig.for_model(settings["model_type"], **rest))
    target = whole.vision_model if hasattr(whole, "vision_model") else whole
    source = tower.vision_model if hasattr(tower, "vision_model") else tower
    target.load_state_dict(source.state_dict())
    return whole


def _native_size(folder: Path, config: PreTrainedConfig) -> int:
    """Returns the side in pixels of the square for which SigLIP 2 has position embeddings."""
    places = getattr(config, "num_patches", None)
    if places is None:
        raise ValueError(
            f"the configuration in {str(folder)!r} gives no image_size; pass --image-size"
        )
    return int(places**0.5) * config.patch_size


def _configuration(
    language: PreTrainedConfig, vision: dict, vae: nn.Module, adapters: Adapters
) -> JanusFlowConfig:
    factor, hidden = latents.pixels_per_latent(vae), language.hidden_size
    patch = adapters.patch or max(1, TOKEN_PIXELS // factor)
    channels = adapters.channels or max(32, round(hidden * 3 / 8 / 32) * 32)
    both = dict(
        block_out_channels=[channels],
        layers_in_middle=adapters.layers,
        hidden_size=hidden,
        norm_eps=1e-6,
        use_bias=True,
        use_mid_block=True,
    )
    made = vae.config.latent_channels
    encoder = dict(input_channels=made, stride=patch, kernel_size=patch, padding=0, **both)
    decoder = dict(
        in_channels=channels, out_channels=made, upsamples=patch.bit_length() - 1, **both
    )
    settings = {k: v for k, v in language.to_dict().items() if k not in ("architectures", "dtype")}
    return JanusFlowConfig(
        language_config=settings,
        vision_und_enc_config=dict(model_type="vision_und_enc", params=vision),
        vision_gen_enc_config=dict(
            model_type="vision_gen_enc", params=encoder | dict(pixels_per_latent=factor)
        ),
        vision_gen_dec_config=dict(model_type="vision_gen_dec", params=decoder),
    )


def _processor_files(language: Path, vision: Path, config: JanusFlowConfig) -> ProcessorFiles:
    """Writes the language model's tokenizer with image tags, and the vision's image settings."""
    text = read_text(language / "tokenizer.json", "tokenizer_bytes")
    parse_object(text, language / "tokenizer.json")
    own = read_optional(language / "tokenizer_config.json")
    own = {k: token_text(v) for k, v in own.items() if k in ("bos_token", "eos_token", "pad_token")}
    eos = own.get("eos_token")
    if eos is None:
        raise ValueError(f"{str(language)!r} names no eos_token in tokenizer_config.json; add it")
    bos = own.get("bos_token") or BOS
    tokenizer = parse_tokenizer(text)
    if tokenizer.token_to_id(bos) is None:  # Qwen has none, and guidance needs one
        tokenizer.add_special_tokens([AddedToken(bos, special=True, normalized=False)])
        text = tokenizer.to_str(pretty=True)
    tags = dict(
        image_tag=IMAGE,
        image_start_tag=IMAGE_START,
        image_end_tag=IMAGE_END,
        image_gen_tag=IMAGE_GEN,
        pad_tag=own.get("pad_token") or PAD,
        num_image_tokens=config.vision.tokens,
        sft_format="deepseek_old",
        system_prompt="",
        processor_class="VLChatProcessor",
    )
    named = dict(bos_token=bos, eos_token=eos, pad_token=own.get("pad_token") or eos)
    return ProcessorFiles(text, named, None, tags, _pixels(vision, config))


def _pixels(vision: Path, config: JanusFlowConfig) -> dict:
    """Returns preprocessor_config.json with the encoder's mean and deviation, 0.5 by default."""
    own = read_optional(vision / "preprocessor_config.json")
    inside = read_optional(vision / "config.json").get("pretrained_cfg", {})
    half = [0.5, 0.5, 0.5]
    return dict(
        image_size=config.vision.image_size,
        image_mean=own.get("image_mean") or inside.get("mean") or half,
        image_std=own.get("image_std") or inside.get("std") or half,
        rescale_factor=1 / 255,
        do_normalize=True,
        processor_class="VLChatProcessor",
    )


def _whole(folder: Path, told: Mapping) -> None:
    if missing := sorted(told["missing_keys"]):
        raise ValueError(f"{str(folder)!r} lacks {missing[0]!r}; fetch its weights again")
