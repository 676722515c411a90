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
NewModel = Annotated[
    Path,
    option(
        "--out",
        "-o",
        help="Writes the model to this folder, which must be new or empty.",
        panel=OUTPUT,
        parser=path,
        metavar="PATH",
    ),
]
Vae = Annotated[
    str | None,
    option(
        help="Takes the autoencoder from this folder or hub id, if the model has no vae/ folder.",
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
        help="Runs on this device, such as cpu, cuda, cuda:1 or mps; auto takes the "
        "fastest one available.",
        panel=MODEL,
        autocompletion=names.devices,
    ),
]
Dtype = Annotated[
    str,
    option(
        help="Computes in this dtype: auto, float32 (fp32), bfloat16 (bf16), float16 "
        "(fp16), or int8 for 8-bit weights. auto is float32, "
        "and on CUDA a 16-bit dtype.",
        panel=MODEL,
        autocompletion=names.dtypes,
    ),
]
Quality = Annotated[
    str | None,
    option(
        help="Sets the quality and thereby the time per image: exact (the default), high, "
        "fast or draft.",
        panel=SAMPLING,
        autocompletion=names.qualities,
    ),
]
Steps = Annotated[
    int | None,
    option(
        "--steps",
        help="Takes this many sampling steps; --num-inference-steps is the same option. "
        "The default is the quality's, 30 for exact.",
        panel=SAMPLING,
    ),
]
Sampler = Annotated[
    str | None,
    option(
        help="Integrates with this solver; `janusflow samplers` lists all. The default is "
        "the quality's.",
        panel=SAMPLING,
        autocompletion=names.samplers,
    ),
]
Grid = Annotated[
    str | None,
    option(
        help="Steps through these times: a name that `janusflow grids` lists, times such "
        "as '0 0.3 1', or the .json file of `janusflow pilot`. The default is the "
        "solver's own grid.",
        panel=SAMPLING,
        autocompletion=names.grids,
    ),
]
GuidanceScale = Annotated[
    str | None,
    option(
        help="Sets the guidance weight (1 means no guidance), or a rule that `janusflow rules` "
        "lists. The default is 2, and for Janus-Pro the model's own, 5 as published.",
        panel=SAMPLING,
        autocompletion=names.rules,
    ),
]
NegativePrompt = Annotated[
    str | None,
    option(help="Guides away from this text. The default is the empty prompt.", panel=SAMPLING),
]
Height = Annotated[
    int | None,
    option(help="Sets the image's height in pixels. The default is the model's.", panel=SAMPLING),
]
Width = Annotated[
    int | None,
    option(help="Sets the image's width in pixels. The default is the model's.", panel=SAMPLING),
]
Seed = Annotated[
    int, option(help="Seeds the noise with this whole number, at least 0.", panel=SAMPLING)
]
FirstBlockCache = Annotated[
    float | None,
    option(
        help="Skips a step's later blocks if the first block's output changed by less than "
        "this fraction, such as 0.1. It is off by default.",
        panel=SAMPLING,
    ),
]
Compile = Annotated[
    bool,
    option(
        "--compile",
        help="Compiles the network with torch.compile before the first image.",
        panel=MODEL,
    ),
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
