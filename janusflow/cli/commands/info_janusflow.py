"""The part of `janusflow info` for JanusFlow, from the configuration alone."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from janusflow.models import published_configs
from janusflow.models.janusflow.configuration import JanusFlowConfig
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.pipelines import memory
from janusflow.utils.devices import pick_device
from janusflow.utils.hub import CONFIGS, locate
from janusflow.utils.text import explained

PARTS = {
    "vision encoder": ("vision_und_", "beg_of_und_embed"),
    "language model": ("language_model.",),
    "generation encoder": ("vision_gen_enc_",),
    "generation decoder": ("vision_gen_dec_",),
}
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def count_parameters(config: JanusFlowConfig) -> dict[str, int]:
    """Returns the parameters of each part without allocating memory."""
    return counted(lambda: JanusFlowModel(config), PARTS)


def counted(make: Callable[[], nn.Module], parts: dict[str, tuple[str, ...]]) -> dict[str, int]:
    """Returns the parameters of each part, whose names begin with one of these, on no device."""
    with torch.device("meta"):
        sizes = {name: p.numel() for name, p in make().named_parameters()}
    return {
        part: sum(n for name, n in sizes.items() if name.startswith(starts))
        for part, starts in parts.items()
    }


def facts(name: str) -> dict:
    """Returns the parameters of each part, and the bytes of the weights in each dtype."""
    return told(name, count_parameters(JanusFlowConfig.from_pretrained(folder_of(name))))


def folder_of(name: str) -> Path:
    """Returns the folder with the configuration, which is all that is downloaded; a published
    model's is packaged.
    """
    return published_configs.folder(name) or locate(name, CONFIGS)


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
    faults = (RuntimeError, TypeError, AssertionError, IndexError)
    with explained(f"{name} describes a network that does not run", "check config.json", *faults):
        found = {
            kind: memory.of_folder(folder, vae, dtype=dtype, eight_bit=coded, **setting).told()
            for kind, (dtype, coded) in kinds.items()
        }
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
    tokens = (vision.image_size // 8 // generation.patch) ** 2
    lines = [
        f"  vision encoder   {vision.layers} blocks of {vision.width}, {vision.image_size} px, "
        f"{vision.tokens} tokens",
        f"  generation       {generation.latent_channels} channels, {generation.channels} wide, "
        f"{tokens} tokens at {vision.image_size} px",
    ]
    return parts_table(name, text, lines, count_parameters(config))


def parts_table(name: str, text, lines: list[str], counts: dict[str, int]) -> str:
    """Formats the language model's configuration, lines on other parts, and the parameters."""
    return "\n".join(
        [
            name,
            f"  language model   {text.num_hidden_layers} blocks of {text.hidden_size}, "
            f"{text.num_attention_heads} heads, MLP {text.intermediate_size}, "
            f"{text.vocab_size} tokens",
            *lines,
            "",
            *(f"  {part:<20}{count:>15,}" for part, count in counts.items()),
            f"  {'parameters':<20}{sum(counts.values()):>15,}",
        ]
    )
