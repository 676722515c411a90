"""The common part of training commands: options of a run, its start and its end."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from janusflow.cli.shared_options import Panel
from janusflow.cli.signals import Stopped
from janusflow.utils.keywords import choice

RUN = Panel("Run")
Threads = Annotated[
    int | None, RUN.info("Runs torch on this many CPU threads. The default is the number of cores.")
]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of a training run: its folder and settings, how it starts and ends."""

    out: Path = RUN.path("Stores the run in this folder.", "--out", "-o", default=...)
    config: Path | None = RUN.path("Reads settings from this YAML file; --set overrides them.")
    set: list[str] = RUN.option(
        "Changes a setting, such as training.lr=2e-5; repeat for several.", "--set", default=[]
    )
    init_from: Path | None = RUN.path(
        "Starts from the averaged weights of this run or model, with a new optimizer."
    )
    resume: bool = RUN.option(
        "Resumes an existing run in --out; --no-resume refuses a folder that holds one.",
        default=True,
    )
    export: Path | None = RUN.path(
        "Writes the averaged model to this folder when the run has ended."
    )
    export_dtype: str = RUN.option(
        "Exports the weights in this dtype: bfloat16, or float32 to continue training from them.",
        default="bfloat16",
    )
    threads: Threads = None


@dataclass(frozen=True, kw_only=True)
class WorldRun(TrainingOptions):
    """Options of a training run on prompts of the scenes world."""

    categories: str | None = RUN.option(
        "Sets the relative shares of the prompt categories single_object, two_object, "
        "counting, colors, position, color_attr and mixed, in this order. The default is '1 2 "
        "2 1 3 3 3'."
    )


@contextmanager
def training_libraries() -> Iterator[None]:
    """A context for a training command's imports: it says what to install if one is missing."""
    from janusflow.cli.terminal import importing
    from janusflow.utils.extras import needed

    with importing(), needed("train", "training"):
        yield


def begin(options: TrainingOptions) -> dict:
    """Returns the settings that the user changes. Raises ValueError for one that is invalid."""
    from janusflow.training import config
    from janusflow.training.export import check_target
    from janusflow.utils.devices import DTYPES, full_name, use_threads

    use_threads(options.threads)
    choice("--export-dtype is", full_name(options.export_dtype), DTYPES)
    if options.export is not None:  # before hours of training
        check_target(options.export, Path(getattr(options, "model", None) or options.out / "base"))
    if not options.resume and list(options.out.glob("step-*.safetensors")):
        raise ValueError(
            f"{options.out} holds checkpoints already; choose another folder or --resume"
        )
    return (config.read(options.config) if options.config else {}) | config.parse(options.set)


def end(options: TrainingOptions, ended=None, model: str | None = None, best: bool = False) -> dict:
    """Exports the trained model. A run that was stopped exits with the signal's code instead."""
    from janusflow.training import loop
    from janusflow.utils.devices import DTYPES, full_name

    if ended is not None and not ended.finished:
        stopped = Stopped(ended.signal or signal.SIGTERM)
        stopped.told = True  # the run has said what stays
        raise stopped
    if options.export:
        dtype = DTYPES[full_name(options.export_dtype)]
        loop.export(options.out, options.export, dtype, model, best)
        print(options.export)
    return dict(out=options.out, export=options.export)
