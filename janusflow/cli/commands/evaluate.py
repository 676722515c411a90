"""`janusflow evaluate`: evaluates a model, or compares two reports."""

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
    """The options of `janusflow evaluate`."""

    task: Annotated[
        str,
        option(
            help="Runs this evaluation: scenes, scenes-vqa, judge, round-trip, telephone, "
            "symmetric, soft-tifa, geneval, geneval2, dpg, fid, kid, or a task of a "
            "plugin.",
            panel=TASK,
            autocompletion=o.names.tasks,
        ),
    ] = "scenes"
    out: Annotated[
        Path | None,
        option(
            "--out",
            "-o",
            help="Stores answers and report in this folder. The default is evaluation/TASK.",
            panel=OUTPUT,
            parser=path,
            metavar="PATH",
        ),
    ] = None
    split: Annotated[
        list[str],
        option(
            help="Uses the prompts of this split: test, pairs, counts, relations, long, "
            "paraphrases, or all; repeat for several.",
            panel=TASK,
        ),
    ] = field(default_factory=lambda: ["test"])
    prompts: Annotated[
        str,
        option(
            help="Uses this many prompts of each category or question template, or the "
            "prompts of this file or folder.",
            panel=TASK,
        ),
    ] = "100"
    seeds: Annotated[
        int, option(help="Generates this many images for each prompt.", panel=TASK)
    ] = 4
    cycles: Annotated[
        int,
        option(
            help="For telephone: sets how many times an image is generated from a caption of "
            "the previous one.",
            panel=TASK,
        ),
    ] = 3
    rescore: Annotated[
        Path | None,
        option(
            help="Scores the existing answers in this folder again, without loading the model.",
            **FILE,
        ),
    ] = None
    compare: Annotated[
        tuple[Path, Path] | None,
        option(
            help="Compares these two report.json files by paired statistical tests.", panel=TASK
        ),
    ] = None
    results: Annotated[
        Path | None,
        option(
            help="Reads this results file of an official evaluator about the images in --out.",
            **FILE,
        ),
    ] = None
    reference: Annotated[
        Path | None,
        option(help="For fid and kid: compares with the reference images in this folder.", **FILE),
    ] = None
    images: Annotated[
        Path | None,
        option(
            help="For fid and kid: measures the images in this folder, and generates none.",
            **FILE,
        ),
    ] = None
    features: Annotated[
        str | None,
        option(
            help="For fid and kid: computes features with this vision model, or with "
            "Inception's .pth file. The default is the evaluated model's vision "
            "encoder.",
            panel=TASK,
        ),
    ] = None
    figures: Annotated[
        bool,
        option(help="Draws a bar chart of the scores and sheets of failed images.", panel=OUTPUT),
    ] = True
    quality: o.Quality = None
    num_inference_steps: o.Steps = None
    sampler: o.Sampler = None
    grid: o.Grid = None
    guidance_scale: o.GuidanceScale = None
    first_block_cache: o.FirstBlockCache = None
    batch_size: Annotated[
        int, option(help="Computes this many images or answers at once.", panel=MODEL)
    ] = 16


@command("evaluate", panel="Measuring", plugins=True)
def evaluate(options: Options) -> dict:
    """Evaluates a model on a task, or compares two reports; see docs/evaluation.md."""
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
