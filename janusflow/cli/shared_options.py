"""Options that several commands share, named as in the Python API."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from janusflow.cli import names
from janusflow.cli.command import declared
from janusflow.utils.packaged import DEFAULT


def path(text: str | Path) -> Path:
    """Returns the path as the user wrote it. Raises an error for an empty one."""
    if not str(text) or str(text).isspace():
        raise typer.BadParameter("the path is empty; name a file or a folder")
    return Path(text)


@dataclass(frozen=True)
class Panel:
    """A panel of `--help`, and the options in it.

    `steps: int = SAMPLING.option("Takes this many steps.", default=30)` declares an option in a
    class of options. Words such as "--steps" and "-n" are its names if the field's does not serve.
    """

    name: str

    def info(self, help: str, *words: str, **more) -> Any:
        """Returns the option for an `Annotated` type that several commands share."""
        return typer.Option(*words, help=help, rich_help_panel=self.name, **more)

    def path_info(self, help: str, *words: str) -> Any:
        """Returns an option of files or folders for an `Annotated` type."""
        return self.info(help, *words, parser=path, metavar="PATH")

    def option(self, help: str, *words: str, default: Any = None, **more) -> Any:
        """Declares an option as a field; the default `...` makes it required."""
        return declared(self.info(help, *words, **more), default)

    def path(self, help: str, *words: str, default: Any = None) -> Any:
        """Declares an option of files or folders as a field."""
        return declared(self.path_info(help, *words), default)


def argument(help: str, default: Any = ..., **more) -> Any:
    """Declares a positional argument as a field."""
    return declared(typer.Argument(help=help, **more), default)


MODEL, SAMPLING, OUTPUT = Panel("Model"), Panel("Sampling"), Panel("Output")
Model = Annotated[
    str,
    MODEL.info(
        "Names the model: a packaged one, a folder or a hub id.", autocompletion=names.models
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
    OUTPUT.path_info("Writes the model to this folder, which must be new or empty.", "--out", "-o"),
]
Vae = Annotated[
    str | None,
    MODEL.info(
        "Takes the autoencoder from this folder or hub id, if the model has no vae/ folder.",
        autocompletion=names.folders,
    ),
]
Lora = Annotated[
    str | None,
    MODEL.info("Loads the LoRA adapter from this folder or hub id.", autocompletion=names.folders),
]
Device = Annotated[
    str,
    MODEL.info(
        "Runs on this device, such as cpu, cuda, cuda:1 or mps; auto takes the fastest one "
        "available.",
        autocompletion=names.devices,
    ),
]
Dtype = Annotated[
    str,
    MODEL.info(
        "Computes in this dtype: auto, float32 (fp32), bfloat16 (bf16), float16 (fp16), or int8 "
        "for 8-bit weights. auto is float32, and on CUDA a 16-bit dtype.",
        autocompletion=names.dtypes,
    ),
]
Quality = Annotated[
    str | None,
    SAMPLING.info(
        "Sets the quality and thereby the time per image: exact (the default), high, fast or "
        "draft.",
        autocompletion=names.qualities,
    ),
]
Steps = Annotated[
    int | None,
    SAMPLING.info(
        "Takes this many sampling steps; --num-inference-steps is the same option. The default is "
        "the quality's, 30 for exact.",
        "--steps",
    ),
]
Sampler = Annotated[
    str | None,
    SAMPLING.info(
        "Integrates with this solver; `janusflow samplers` lists all. The default is the "
        "quality's.",
        autocompletion=names.samplers,
    ),
]
Grid = Annotated[
    str | None,
    SAMPLING.info(
        "Steps through these times: a name that `janusflow grids` lists, times such as '0 0.3 1', "
        "or the .json file of `janusflow pilot`. The default is the solver's own grid.",
        autocompletion=names.grids,
    ),
]
GuidanceScale = Annotated[
    str | None,
    SAMPLING.info(
        "Sets the guidance weight (1 means no guidance), or a rule that `janusflow rules` lists. "
        "The default is 2, and for Janus-Pro the model's own, 5 as published.",
        autocompletion=names.rules,
    ),
]
NegativePrompt = Annotated[
    str | None, SAMPLING.info("Guides away from this text. The default is the empty prompt.")
]
Height = Annotated[
    int | None, SAMPLING.info("Sets the image's height in pixels. The default is the model's.")
]
Width = Annotated[
    int | None, SAMPLING.info("Sets the image's width in pixels. The default is the model's.")
]
Seed = Annotated[int, SAMPLING.info("Seeds the noise with this whole number, at least 0.")]
FirstBlockCache = Annotated[
    float | None,
    SAMPLING.info(
        "Skips a step's later blocks if the first block's output changed by less than this "
        "fraction, such as 0.1. It is off by default."
    ),
]
BestOf = Annotated[
    int | None,
    SAMPLING.info(
        "Generates this many candidates for each image and keeps the best one. The default is 1."
    ),
]
Verifier = Annotated[
    str | None,
    SAMPLING.info(
        "Selects the best candidate by this verifier: own (the one that the model names), caption, "
        "vqa_score, soft_tifa (for prompts of shapes), or one of a plugin."
    ),
]
Compile = Annotated[
    bool, MODEL.info("Compiles the network with torch.compile before the first image.", "--compile")
]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The options for the model, its device and its dtype."""

    model: Model = DEFAULT
    vae: Vae = None
    device: Device = "auto"
    dtype: Dtype = "auto"


@dataclass(frozen=True, kw_only=True)
class AdapterOptions(Placement):
    """The options of commands that load a model with a LoRA adapter."""

    model: Model = DEFAULT
    vae: Vae = None
    lora: Lora = None
