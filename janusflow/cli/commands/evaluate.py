"""`janusflow evaluate`: evaluates a model, or compares two reports."""

from dataclasses import dataclass
from pathlib import Path

from janusflow.cli import shared_options as o
from janusflow.cli.command import command
from janusflow.cli.shared_options import MODEL, OUTPUT, Panel
from janusflow.cli.terminal import importing

TASK = Panel("Task")


@dataclass(frozen=True, kw_only=True)
class Options(o.AdapterOptions):
    """The options of `janusflow evaluate`."""

    task: str = TASK.option(
        "Runs this evaluation: scenes, scenes-vqa, judge, round-trip, telephone, symmetric, "
        "soft-tifa, geneval, geneval2, dpg, fid, kid, or a task of a plugin.",
        default="scenes",
        autocompletion=o.names.tasks,
    )
    out: Path | None = OUTPUT.path(
        "Stores answers and report in this folder. The default is evaluation/TASK.", "--out", "-o"
    )
    split: list[str] = TASK.option(
        "Uses the prompts of this split: test, pairs, counts, relations, long, paraphrases, "
        "or all; repeat for several.",
        default=["test"],
    )
    prompts: str = TASK.option(
        "Uses this many prompts of each category or question template, or the prompts of this "
        "file or folder.",
        default="100",
    )
    seeds: int = TASK.option("Generates this many images for each prompt.", default=4)
    cycles: int = TASK.option(
        "For telephone: sets how many times an image is generated from a caption of the "
        "previous one.",
        default=3,
    )
    rescore: Path | None = TASK.path(
        "Scores the existing answers in this folder again, without loading the model."
    )
    compare: tuple[Path, Path] | None = TASK.option(
        "Compares these two report.json files by paired statistical tests."
    )
    results: Path | None = TASK.path(
        "Reads this results file of an official evaluator about the images in --out."
    )
    reference: Path | None = TASK.path(
        "For fid and kid: compares with the reference images in this folder."
    )
    images: Path | None = TASK.path(
        "For fid and kid: measures the images in this folder, and generates none."
    )
    features: str | None = TASK.option(
        "For fid and kid: computes features with this vision model, or with Inception's .pth "
        "file. The default is the evaluated model's vision encoder."
    )
    figures: bool = OUTPUT.option(
        "Draws a bar chart of the scores, and sheets of wrong images.", default=True
    )
    quality: o.Quality = None
    num_inference_steps: o.Steps = None
    sampler: o.Sampler = None
    grid: o.Grid = None
    guidance_scale: o.GuidanceScale = None
    first_block_cache: o.FirstBlockCache = None
    best_of: o.BestOf = None
    verifier: o.Verifier = None
    batch_size: int = MODEL.option("Computes this many images or answers at once.", default=16)


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
