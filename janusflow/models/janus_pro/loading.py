"""Loads transformers' Janus from a folder in either layout."""

from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusVisionConfig,
    JanusVQVAEConfig,
    LlamaConfig,
)

from janusflow.models.janus_pro import convert, tensors
from janusflow.models.janus_pro.processing import JanusProProcessor
from janusflow.models.janusflow import generation_defaults
from janusflow.models.janusflow.configuration import known_settings
from janusflow.utils import config_guard, finite
from janusflow.utils.checkpoint_files import check_settings, check_size
from janusflow.utils.text import explained

GUIDANCE = 5.0  # the published weight, where generation_config.json says none
BUFFERS = ("position_ids", "inv_freq")  # that older versions of transformers stored
BLOCKS = {  # of transformers' config.json, and the class that each is made into
    None: JanusConfig,
    "text_config": LlamaConfig,
    "vision_config": JanusVisionConfig,
    "vq_config": JanusVQVAEConfig,
}


def read_config(folder: Path) -> dict:
    """Reads config.json. Raises ValueError if it is missing or damaged."""
    return config_guard.read_config(folder / "config.json")


def is_original(config: dict) -> bool:
    """Returns whether this is the published layout. Raises ValueError if it is not a Janus."""
    if config.get("model_type") == "janus":
        return False
    if config.get("model_type") == "multi_modality" and "gen_vision_config" in config:
        return True
    kind = "JanusFlow" if "vision_gen_enc_config" in config else repr(config.get("model_type"))
    raise ValueError(f"config.json is of {kind}, not of Janus or Janus-Pro; use janusflow.load")


def load_model(
    folder: Path, processor: JanusProProcessor, dtype: torch.dtype
) -> JanusForConditionalGeneration:
    """Loads the model in evaluation mode; its generation configuration has the processor's ids.

    Raises ValueError for files that are missing, damaged or do not fit the configuration.
    """
    published = read_config(folder)
    if is_original(published):
        weights = tensors.read(folder)
        config = convert.config(published, weights, processor.image_id)
        weights = convert.convert(weights)
    else:
        config = own_config(folder)
        found = tensors.files(folder)  # before transformers looks for them elsewhere
        if found[0].suffix == ".safetensors":
            check_size(sum(p.numel() for p in _without_memory(config).parameters()), folder)
        weights = None
    processor.check_fits(config.text_config.vocab_size)
    if config.image_token_id != processor.image_id:
        raise ValueError(
            f"image_token_id is {config.image_token_id} in config.json and {processor.image_id} in "
            "the tokenizer; take both from one folder"
        )
    vision = config.vision_config
    processor.check_images(vision.image_size, vision.num_image_tokens)
    model = _assemble(folder if weights is None else None, config, weights, dtype)
    finite.check_weights(model.state_dict(), repr(str(folder)))
    model.generation_config = generation(processor, generation_defaults.read(folder))
    rows = config.text_config.vocab_size
    generation_defaults.check_rows(model.generation_config, rows, folder)
    return model.eval()


def own_config(folder: Path) -> JanusConfig:
    """Returns a folder's configuration by transformers. Raises ValueError if it is invalid."""
    content = read_config(folder)
    for block, kind in BLOCKS.items():
        part = content if block is None else content.get(block)
        if isinstance(part, dict):
            check_settings(part, kind, known_settings(kind), block or "config.json")
    with explained(f"{folder / 'config.json'} does not describe a Janus", "check the folder"):
        config = JanusConfig.from_pretrained(folder)
        if "tie_word_embeddings" not in content:  # transformers would tie, the head is its own
            config.tie_word_embeddings = not _has_head(folder)
    convert.within_limits(config)
    return config


def _has_head(folder: Path) -> bool:
    """Returns whether an output matrix stands beside the embedding, or no weights exist."""
    try:
        return any("lm_head.weight" in tensors.names(path) for path in tensors.files(folder))
    except ValueError:
        return True


def _without_memory(config: JanusConfig) -> JanusForConditionalGeneration:
    """Builds the network without memory. Raises ValueError for an invalid configuration."""
    with explained("config.json does not describe a Janus", "download it again"):
        with torch.device("meta"):
            return JanusForConditionalGeneration(config)


def _assemble(
    folder: Path | None, config: JanusConfig, weights: dict[str, Tensor] | None, dtype: torch.dtype
) -> JanusForConditionalGeneration:
    if weights is not None:
        _check_names(config, weights)
    with explained("the weights cannot be loaded", "download them again"):
        model, report = JanusForConditionalGeneration.from_pretrained(
            folder, config=config, state_dict=weights, dtype=dtype, output_loading_info=True
        )
    lacking = sorted(report["missing_keys"])
    if any(convert.rename(name) != name for name in report["unexpected_keys"]):
        raise ValueError(
            "the weights have the published names, config.json is of transformers' layout; take "
            "both from one folder"
        )
    unknown = sorted(n for n in report["unexpected_keys"] if not n.endswith(BUFFERS))
    for what, names in (("lack", lacking), ("hold, unknown,", unknown)):
        if names:
            raise ValueError(
                f"the weights {what} {len(names)} tensors, the first {names[0]!r}; check that "
                "config.json and the weights are of one checkpoint"
            )
    return model


def _check_names(config: JanusConfig, weights: dict[str, Tensor]) -> None:
    """Raises ValueError for a tensor that is missing, unexpected or of another shape."""
    wanted = {name: p.shape for name, p in _without_memory(config).state_dict().items()}
    wanted = {name: shape for name, shape in wanted.items() if not name.endswith("position_ids")}
    for what, names in (
        ("lack", wanted.keys() - weights.keys()),
        ("hold, unknown,", weights.keys() - wanted.keys()),
    ):
        if names:
            raise ValueError(
                f"the weights {what} {len(names)} tensors, the first {min(names)!r}; check that "
                "the checkpoint is complete"
            )
    for name, shape in wanted.items():
        if not weights[name].is_floating_point():
            raise ValueError(f"{name} is of {weights[name].dtype}, expected floating-point numbers")
        if weights[name].shape != shape:
            raise ValueError(
                f"{name} has shape {tuple(weights[name].shape)}, config.json wants {tuple(shape)}; "
                "take both from one checkpoint"
            )


def own_guidance(folder: Path) -> float:
    """Returns the guidance weight in the folder's generation_config.json, or the published 5."""
    told = generation_defaults.read(folder).guidance_scale
    return GUIDANCE if told is None else float(told)


def generation(
    processor: JanusProProcessor, said: GenerationConfig | None = None
) -> GenerationConfig:
    """Returns what transformers' `generate` needs for an image, added to the folder's settings."""
    tokenizer = processor.tokenizer
    config = GenerationConfig() if said is None else said
    ids = dict(bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)
    for name, value in (ids | dict(pad_token_id=processor.pad_id, guidance_scale=GUIDANCE)).items():
        if getattr(config, name) is None:
            setattr(config, name, value)
    config.generation_kwargs = {"boi_token_id": processor.image_start_id}
    return config
