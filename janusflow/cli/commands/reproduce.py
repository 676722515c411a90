"""`janusflow reproduce`: evaluates a benchmark under settings that may explain a published
score.
"""

from dataclasses import dataclass
from pathlib import Path

from janusflow.cli import shared_options as o
from janusflow.cli.command import command
from janusflow.cli.shared_options import MODEL, OUTPUT, Panel, argument
from janusflow.cli.terminal import importing

SWEEP, BENCHMARK = Panel("Sweep"), Panel("Benchmark")


@dataclass(frozen=True, kw_only=True)
class Options(o.Placement):
    """The options of `janusflow reproduce`."""

    benchmark: str = argument(
        "Evaluates this benchmark: geneval, dpg, mjhq, or scenes (scored exactly)."
    )
    model: o.Model = "deepseek-ai/JanusFlow-1.3B"
    dtype: str = SWEEP.option(
        "Tries these dtypes of the network, separated by commas.", default="bfloat16,float32"
    )
    guidance_scale: str = SWEEP.option(
        "Tries these guidance scales, separated by commas.", default="2,1,3,5,7.5"
    )
    steps: str = SWEEP.option(
        "Tries these numbers of Euler steps, separated by commas.", default="30,10,100"
    )
    state: str = SWEEP.option(
        "Tries these dtypes of the ODE's state, separated by commas: float32, or bfloat16 as "
        "in the published code.",
        default="float32,bfloat16",
    )
    tokenizer: str = SWEEP.option(
        "Tries these tokenizations, separated by commas: own (correct), or the known faults "
        "no-spaces and no-bos.",
        default="own,no-spaces,no-bos",
    )
    full: bool = SWEEP.option(
        "Tries all combinations of settings instead of one change at a time.",
        "--full",
        default=False,
    )
    dry_run: bool = OUTPUT.option(
        "Prints the cost of the whole run and exits.", "--dry-run", default=False
    )
    out: Path | None = OUTPUT.path(
        "Writes to this folder, with a subfolder for each setting. The default is "
        "reproduce/BENCHMARK.",
        "--out",
        "-o",
    )
    prompts: str | None = BENCHMARK.option(
        "Reads the official prompts from this file or folder; for scenes it is the number of "
        "prompts per category."
    )
    seeds: int | None = BENCHMARK.option(
        "Generates this many images for each prompt. The default is the benchmark's own number."
    )
    reference: Path | None = BENCHMARK.path(
        "For mjhq: compares with the reference images in this folder."
    )
    features: str | None = BENCHMARK.option(
        "For mjhq: computes features with this vision model or Inception .pth file."
    )
    batch_size: int = MODEL.option("Computes this many images at once.", default=16)


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
