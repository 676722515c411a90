"""`janusflow reproduce`: evaluates a benchmark under settings that may explain a published
score.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from janusflow.cli import shared_options as o
from janusflow.cli.command import command
from janusflow.cli.shared_options import MODEL, OUTPUT, option, path
from janusflow.cli.terminal import importing

SWEEP = "Sweep"
FILE = dict(panel="Benchmark", parser=path, metavar="PATH")


@dataclass(frozen=True, kw_only=True)
class Options(o.Placement):
    """The options of `janusflow reproduce`."""

    benchmark: Annotated[
        str,
        typer.Argument(
            help="Evaluates this benchmark: geneval, dpg, mjhq, or scenes (scored exactly).",
        ),
    ]
    model: o.Model = "deepseek-ai/JanusFlow-1.3B"
    dtype: Annotated[
        str,
        option(help="Tries these dtypes of the network, separated by commas.", panel=SWEEP),
    ] = "bfloat16,float32"
    guidance_scale: Annotated[
        str, option(help="Tries these guidance scales, separated by commas.", panel=SWEEP)
    ] = "2,1,3,5,7.5"
    steps: Annotated[
        str, option(help="Tries these numbers of Euler steps, separated by commas.", panel=SWEEP)
    ] = "30,10,100"
    state: Annotated[
        str,
        option(
            help="Tries these dtypes of the ODE's state, separated by commas: float32, or "
            "bfloat16 as in the published code.",
            panel=SWEEP,
        ),
    ] = "float32,bfloat16"
    tokenizer: Annotated[
        str,
        option(
            help="Tries these tokenizations, separated by commas: own (correct), or the "
            "known faults no-spaces and no-bos.",
            panel=SWEEP,
        ),
    ] = "own,no-spaces,no-bos"
    full: Annotated[
        bool,
        option(
            "--full",
            help="Tries all combinations of settings instead of one change at a time.",
            panel=SWEEP,
        ),
    ] = False
    dry_run: Annotated[
        bool, option("--dry-run", help="Prints the cost of the whole run and exits.", panel=OUTPUT)
    ] = False
    out: Annotated[
        Path | None,
        option(
            "--out",
            "-o",
            help="Writes to this folder, with a subfolder for each setting. The default is "
            "reproduce/BENCHMARK.",
            panel=OUTPUT,
            parser=path,
            metavar="PATH",
        ),
    ] = None
    prompts: Annotated[
        str | None,
        option(
            help="Reads the official prompts from this file or folder; for scenes it is "
            "the number of prompts per category.",
            panel="Benchmark",
        ),
    ] = None
    seeds: Annotated[
        int | None,
        option(
            help="Generates this many images for each prompt. The default is the "
            "benchmark's own number.",
            panel="Benchmark",
        ),
    ] = None
    reference: Annotated[
        Path | None,
        option(help="For mjhq: compares with the reference images in this folder.", **FILE),
    ] = None
    features: Annotated[
        str | None,
        option(
            help="For mjhq: computes features with this vision model or Inception .pth file.",
            panel="Benchmark",
        ),
    ] = None
    batch_size: Annotated[
        int,
        option(help="Forecasts the memory for generating this many images at once.", panel=MODEL),
    ] = 16


@command("reproduce", panel="Measuring")
def reproduce(options: Options) -> dict:
    """Scores a benchmark under every setting of a sweep, after showing the cost; see
    docs/reproduce.md.
    """
    with importing():
        from janusflow.cli.commands import reproduce_actions as actions

    found = actions.planned(options)
    print(actions.cost_table(found))
    if options.dry_run:
        return found
    return actions.run(found, options)
