"""The part of `janusflow info` for JanusFlow, from the configuration alone."""

from pathlib import Path

import torch

from janusflow.models import published_configs
from janusflow.models.janusflow.configuration import JanusFlowConfig
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.pipelines import memory
from janusflow.utils.devices import pick_device
from janusflow.utils.hub import locate

PARTS = {
    "vision encoder": ("vision_und_enc_model", "vision_und_enc_aligner", "beg_of_und_embed"),
    "language model": ("language_model",),
    "generation encoder": ("vision_gen_enc_model", "vision_gen_enc_aligner"),
    "generation decoder": (
        "vision_gen_dec_model",
        "vision_gen_dec_aligner",
        "vision_gen_dec_aligner_norm",
    ),
}
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def count_parameters(config: JanusFlowConfig) -> dict[str, int]:
    """Returns the parameters of each part without allocating memory."""
    with torch.device("meta"):
        sizes = {name: p.numel() for name, p in JanusFlowModel(config).named_parameters()}
    return {
        part: sum(n for name, n in sizes.items() if name.split(".")[0] in roots)
        for part, roots in PARTS.items()
    }


def facts(name: str) -> dict:
    """Returns the parameters of each part, and the bytes of the weights in each dtype."""
    return told(name, count_parameters(JanusFlowConfig.from_pretrained(folder_of(name))))


def folder_of(name: str) -> Path:
    """Returns the folder with the configuration; for a published model the packaged one, unless it
    is downloaded.
    """
    return published_configs.folder(name) or locate(name)


def told(name: str, counts: dict[str, int]) -> dict:
    total = sum(counts.values())
    sizes = {dtype: total * size for dtype, size in BYTES.items()}
    return {"model": name, "parts": counts, "parameters": total, "bytes": sizes}


def needed(name: str, vae: str | None = None, **setting) -> dict[str, dict[str, int]]:
    """Returns the bytes to generate images in each dtype, and the bytes that the program uses
    already.
    """
    folder = folder_of(name)
    kinds = {kind: (getattr(torch, kind), False) for kind in BYTES}
    kinds["int8"] = (torch.bfloat16, True)
    setting = dict(device=pick_device().type) | setting
    try:
        found = {
            kind: memory.of_folder(folder, vae, dtype=dtype, eight_bit=coded, **setting).told()
            for kind, (dtype, coded) in kinds.items()
        }
    except (RuntimeError, TypeError, AssertionError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{name} describes a network that does not run ({reason}); check its config.json"
        ) from error
    return found | {"program": {"peak": memory.of_program()}}


def memory_table(found: dict[str, dict[str, int]], images: int) -> str:
    """Formats forecasts in MiB as a table of 80 columns."""
    columns = ("weights", "sampling", "decoding", "peak")
    plural = "image" if images == 1 else "images"
    lines = [
        "",
        f"  MiB to generate {images} {plural} at once, the autoencoder's included",
        f"  {'':<12}" + "".join(f"{name:>12}" for name in columns),
    ]
    for kind, sizes in found.items():
        if "weights" in sizes:
            cells = "".join(f"{sizes[name] / 2**20:>12,.0f}" for name in columns)
            lines.append(f"  {kind:<12}{cells}")
    own = found["program"]["peak"] / 2**20
    return "\n".join([*lines, f"  the program itself, on a CPU, takes {own:,.0f} more"])


def describe(name: str) -> str:
    """Formats a model's parts as a table of 80 columns."""
    config = JanusFlowConfig.from_pretrained(folder_of(name))
    text, vision, generation = config.language_config, config.vision, config.generation
    counts = count_parameters(config)
    total = sum(counts.values())
    tokens = (vision.image_size // 8 // generation.patch) ** 2
    lines = [
        name,
        f"  language model   {text.num_hidden_layers} blocks of {text.hidden_size}, "
        f"{text.num_attention_heads} heads, MLP {text.intermediate_size}, {text.vocab_size} tokens",
        f"  vision encoder   {vision.layers} blocks of {vision.width}, {vision.image_size} px, "
        f"{vision.tokens} tokens",
        f"  generation       {generation.latent_channels} channels, {generation.channels} wide, "
        f"{tokens} tokens at {vision.image_size} px",
        "",
        *(f"  {part:<20}{count:>15,}" for part, count in counts.items()),
        f"  {'parameters':<20}{total:>15,}",
    ]
    return "\n".join(lines)
