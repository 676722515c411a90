"""`janusflow reproduce`: a published score under the settings that may have made it."""

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
    """What `reproduce` is asked for."""

    benchmark: Annotated[
        str, typer.Argument(help="Which score: geneval, dpg, mjhq, or scenes with its own scorer.")
    ]
    model: o.Model = "deepseek-ai/JanusFlow-1.3B"
    dtype: Annotated[
        str,
        option(help="Number formats of the network, with commas between.", panel=SWEEP),
    ] = "bfloat16,float32"
    guidance_scale: Annotated[
        str, option(help="Guidance scales, with commas between.", panel=SWEEP)
    ] = "2,1,3,5,7.5"
    steps: Annotated[
        str, option(help="Numbers of Euler steps, with commas between.", panel=SWEEP)
    ] = "30,10,100"
    state: Annotated[
        str,
        option(
            help="Number formats of the ODE's state, with commas between: float32, or bfloat16 as "
            "in the published code.",
            panel=SWEEP,
        ),
    ] = "float32,bfloat16"
    tokenizer: Annotated[
        str,
        option(
            help="How prompts are cut, with commas between: own, or the faults no-spaces, no-bos.",
            panel=SWEEP,
        ),
    ] = "own,no-spaces,no-bos"
    full: Annotated[
        bool,
        option("--full", help="Takes all combinations, not one change at a time.", panel=SWEEP),
    ] = False
    dry_run: Annotated[
        bool, option("--dry-run", help="Says what it would cost, and ends.", panel=OUTPUT)
    ] = False
    out: Annotated[
        Path | None,
        option(
            "--out",
            "-o",
            help="The folder, with one inside for each setting. By default reproduce/BENCHMARK.",
            panel=OUTPUT,
            parser=path,
            metavar="PATH",
        ),
    ] = None
    prompts: Annotated[
        str | None,
        option(
            help="The official prompts: a file or folder; for scenes how many a category.",
            panel="Benchmark",
        ),
    ] = None
    seeds: Annotated[
        int | None,
        option(help="Images a prompt. By default the benchmark's.", panel="Benchmark"),
    ] = None
    reference: Annotated[Path | None, option(help="mjhq: a folder of real images.", **FILE)] = None
    features: Annotated[
        str | None, option(help="mjhq: a model, or Inception's .pth.", panel="Benchmark")
    ] = None
    batch_size: Annotated[int, option(help="Images at once.", panel=MODEL)] = 16


@command("reproduce", panel="Measuring")
def reproduce(options: Options) -> dict:
    """Scores a benchmark under every setting of a sweep; cost first, see docs/reproduce.md."""
    with importing():
        from janusflow.cli.commands import reproduce_actions as actions

    found = actions.planned(options)
    print(actions.cost_table(found))
    if options.dry_run:
        return found
    return actions.run(found, options)
