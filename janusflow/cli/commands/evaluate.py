"""`janusflow evaluate`: scores of a model, or of two against each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from janusflow.cli import shared_options as o
from janusflow.cli.command import command
from janusflow.cli.shared_options import MODEL, OUTPUT, option, path
from janusflow.cli.terminal import importing

TASK = "Task"
FILE = dict(panel=TASK, parser=path, metavar="PATH")


@dataclass(frozen=True, kw_only=True)
class Options(o.Adapted):
    """What `evaluate` is asked for."""

    task: Annotated[
        str,
        option(
            help="What is measured: scenes, scenes-vqa, judge, round-trip, telephone, symmetric, "
            "soft-tifa, geneval, geneval2, dpg, fid, kid, or a task of a plugin.",
            panel=TASK,
            autocompletion=o.names.tasks,
        ),
    ] = "scenes"
    out: Annotated[
        Path | None,
        option(
            "--out",
            "-o",
            help="Folder of answers and report. By default evaluation/TASK.",
            panel=OUTPUT,
            parser=path,
            metavar="PATH",
        ),
    ] = None
    split: Annotated[
        list[str],
        option(
            help="A split: test, pairs, counts, relations, long, paraphrases, or all; repeat.",
            panel=TASK,
        ),
    ] = field(default_factory=lambda: ["test"])
    prompts: Annotated[
        str,
        option(
            help="How many prompts a category or template, or a file or folder of them.", panel=TASK
        ),
    ] = "100"
    seeds: Annotated[int, option(help="Images a prompt.", panel=TASK)] = 4
    cycles: Annotated[
        int, option(help="telephone: how often a caption becomes an image.", panel=TASK)
    ] = 3
    rescore: Annotated[
        Path | None, option(help="A folder whose answers are scored anew.", **FILE)
    ] = None
    compare: Annotated[
        tuple[Path, Path] | None,
        option(help="Two report.json that paired tests compare.", panel=TASK),
    ] = None
    results: Annotated[
        Path | None, option(help="An official evaluator's results on --out.", **FILE)
    ] = None
    reference: Annotated[Path | None, option(help="fid, kid: a folder of real images.", **FILE)] = (
        None
    )
    images: Annotated[
        Path | None, option(help="fid, kid: a folder of images to measure.", **FILE)
    ] = None
    features: Annotated[
        str | None,
        option(
            help="fid, kid: a model, or Inception's .pth. By default the model's own encoder.",
            panel=TASK,
        ),
    ] = None
    figures: Annotated[bool, option(help="Whether bars and failures are drawn.", panel=OUTPUT)] = (
        True
    )
    quality: o.Quality = None
    num_inference_steps: o.Steps = None
    sampler: o.Sampler = None
    grid: o.Grid = None
    guidance_scale: o.GuidanceScale = None
    first_block_cache: o.FirstBlockCache = None
    batch_size: Annotated[int, option(help="Images or questions at once.", panel=MODEL)] = 16


@command("evaluate", panel="Measuring", plugins=True)
def evaluate(options: Options) -> dict:
    """Scores a model, or two reports against each other; see docs/evaluation.md."""
    with importing():
        from janusflow.cli.commands import evaluate_actions as actions

    folder = options.out or Path("evaluation", options.task)
    if options.compare:
        return actions.tell_comparison(*options.compare)
    if options.rescore:
        folder = options.rescore
        return actions.publish(actions.rescore(folder), folder, options.figures)
    if options.results:
        found = actions.results(options.results, folder)
    else:
        found = actions.run(actions.plan(options), folder, options)
    return actions.publish(found, folder, options.figures)
