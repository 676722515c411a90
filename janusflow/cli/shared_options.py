"""Options that several commands share, named as in the Python API."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from janusflow.cli import names

DEFAULT = "janusflow/scenes"
MODEL, SAMPLING, OUTPUT = "Model", "Sampling", "Output"  # panels of --help


def path(text: str | Path) -> Path:
    """Returns the path as the user wrote it. Raises an error for an empty one."""
    if not str(text) or str(text).isspace():
        raise typer.BadParameter("it is empty; name a file or a folder")
    return Path(text)


def option(*words: str, help: str, panel: str, **more):
    """Returns a `typer.Option` with a help sentence in a panel."""
    return typer.Option(*words, help=help, rich_help_panel=panel, **more)


Model = Annotated[
    str,
    option(
        help="Names the model: a packaged one, a folder or a hub id.",
        panel=MODEL,
        autocompletion=names.models,
    ),
]
ModelName = Annotated[
    str,
    typer.Argument(
        help="Names the model: a packaged one, a folder or a hub id.", autocompletion=names.models
    ),
]
Vae = Annotated[
    str | None,
    option(
        help="Takes the autoencoder from this folder or hub id, for a model without vae/ of "
        "its own.",
        panel=MODEL,
        autocompletion=names.folders,
    ),
]
Lora = Annotated[
    str | None,
    option(
        help="Loads the LoRA adapter from this folder or hub id.",
        panel=MODEL,
        autocompletion=names.folders,
    ),
]
Device = Annotated[
    str,
    option(
        help="Runs on this device: cpu, cuda, cuda:1, mps, ..., or auto, which takes the "
        "fastest there is.",
        panel=MODEL,
        autocompletion=names.devices,
    ),
]
Dtype = Annotated[
    str,
    option(
        help="Computes in this number format: auto, float32 (fp32), bfloat16 (bf16), float16 "
        "(fp16), or int8 for 8-bit weights. auto is the shortest that the device "
        "computes in.",
        panel=MODEL,
        autocompletion=names.dtypes,
    ),
]
Quality = Annotated[
    str | None,
    option(
        help="Sets how much work an image gets: exact (the default), high, fast or draft.",
        panel=SAMPLING,
        autocompletion=names.qualities,
    ),
]
Steps = Annotated[
    int | None,
    option(
        "--steps",
        help="Takes this many steps of the sampler (or --num-inference-steps). By default the "
        "quality's: 30 for exact.",
        panel=SAMPLING,
    ),
]
Sampler = Annotated[
    str | None,
    option(
        help="Integrates with this solver; `janusflow samplers` lists them. By default the "
        "quality's.",
        panel=SAMPLING,
        autocompletion=names.samplers,
    ),
]
Grid = Annotated[
    str | None,
    option(
        help="Places the steps at these times: a name that `janusflow grids` lists, times "
        "such as '0 0.3 1', or a pilot's .json. By default the solver's own.",
        panel=SAMPLING,
        autocompletion=names.grids,
    ),
]
GuidanceScale = Annotated[
    str | None,
    option(
        help="Sets the guidance weight (1 is no guidance) or a rule that `janusflow rules` "
        "lists. By default 2, for Janus-Pro 5.",
        panel=SAMPLING,
        autocompletion=names.rules,
    ),
]
NegativePrompt = Annotated[
    str | None,
    option(help="Guides away from this text. By default from the empty prompt.", panel=SAMPLING),
]
Height = Annotated[
    int | None, option(help="Sets the height in pixels. By default the model's.", panel=SAMPLING)
]
Width = Annotated[
    int | None, option(help="Sets the width in pixels. By default the model's.", panel=SAMPLING)
]
FirstBlockCache = Annotated[
    float | None,
    option(
        help="Skips the later blocks of a step where the first one changed by less than this "
        "share, such as 0.1. Off by default.",
        panel=SAMPLING,
    ),
]
Compile = Annotated[
    bool, option("--compile", help="Compiles the network with torch.compile first.", panel=MODEL)
]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The options for the model, its device and its dtype."""

    model: Model = DEFAULT
    vae: Vae = None
    device: Device = "auto"
    dtype: Dtype = "auto"


@dataclass(frozen=True, kw_only=True)
class Adapted(Placement):
    """The options of commands that load a model with a LoRA adapter."""

    model: Model = DEFAULT
    vae: Vae = None
    lora: Lora = None


def guidance(text: str):
    """Returns a number, or a rule of `samplers.guidance` by name.

    Raises ValueError for anything else.
    """
    from samplers import guidance as rules

    try:
        return rules.cfg(float(text))
    except ValueError:
        if text.split(":")[0] in rules.RULES:
            return rules.parse(text)
    name = text.split(":")[0]
    raise ValueError(
        f"guidance {text!r:.80} is neither a finite number nor a rule"
        f"{names.hint(name, rules.RULES)}; give 1 for none, or one of {', '.join(rules.RULES)}, as "
        "in guidance_interval:4,0.1,0.9"
    )
