"""The steps of `janusflow evaluate`: plan, run and print."""

from pathlib import Path

from janusflow.cli import load_model, model_families
from janusflow.evaluation import plan as plans
from janusflow.evaluation import report, report_comparison, runner
from janusflow.evaluation.plan import Plan
from janusflow.evaluation.runner import rescore
from janusflow.evaluation.tasks import find as find_task
from janusflow.evaluation.tasks import official_results
from janusflow.models.family import PRO, side
from janusflow.pipelines.few_step import FewStep
from janusflow.pipelines.guided_velocity import rule_of
from janusflow.pipelines.presets import grid_text, read_grid, read_grids, resolve
from janusflow.pipelines.time_grid import time_grid
from janusflow.scenes.world import SPLITS
from janusflow.utils import limits
from janusflow.utils.devices import pick_device, pick_dtype, place, written
from janusflow.utils.hub import locate
from samplers.core import find

__all__ = ["compare", "plan", "publish", "rescore", "run", "tell_comparison", "way"]


def way(options) -> dict:
    """Returns the plan's settings of how images are generated; Janus-Pro has no solver."""
    kind = model_families.check(options)
    text = model_families.guided(kind, options)
    if kind == PRO:
        told = dict(sampler="tokens", grid="in reading order, temperature 1")
        return told | dict(steps=1, guidance=text)
    steps = options.num_inference_steps
    limits.whole(steps, "--steps", "number", optional=True)
    if few := model_families.few_step_of(options, text):
        how, grid = few.quality, grid_text(few.quality.grid)
        told = dict(sampler=how.sampler, grid=grid, steps=how.steps)
        return told | dict(guidance=text, generated_by=few.model)
    given = dict(sampler=options.sampler, steps=steps, grid=read_grid(options.grid))
    chosen = resolve(options.quality or "exact", read_grids(locate(options.model)), **given)
    solver = find(chosen.sampler)
    time_grid(solver, 1, chosen.grid)
    return dict(
        sampler=chosen.sampler,
        grid=grid_text(chosen.grid) or solver.grid,
        steps=chosen.steps,
        guidance=chosen.written(text),
    )


def plan(options) -> Plan:
    """Checks all options before the model is loaded.

    Raises ValueError for the first invalid one.
    """
    numbers = dict(
        seeds=options.seeds,
        batch=options.batch_size,
        cycles=options.cycles,
        reuse=options.first_block_cache,
        best_of=1 if options.best_of is None else options.best_of,
        verifier=options.verifier or "own",
    )
    given = dict(reference=options.reference, pictures=options.images, features=options.features)
    if options.prompts.isdecimal():
        numbers["prompts"] = int(options.prompts)
    else:
        given["prompts"] = options.prompts
    paths = {name: str(value) for name, value in given.items() if value is not None}
    splits = options.split
    if "all" in splits:
        splits = [name for name in SPLITS if name != "train"]
    made = way(options)
    digests = find_task(options.task).inputs(paths)
    folder, chosen = locate(options.model), pick_device(options.device)
    few = FewStep(made["generated_by"], 1) if "generated_by" in made else None
    found = Plan(
        task=options.task,
        model=options.model,
        weights=load_model.weights(options, options.lora, few),
        lora=options.lora or "",
        side=side(folder),
        dtype=written(pick_dtype(options.dtype, chosen), options.dtype),
        device=place(chosen),
        splits=tuple(dict.fromkeys(splits)),
        paths={name: _absolute(path) for name, path in paths.items()},
        digests=digests,
        **made,
        **numbers,
    )
    rule_of(found.guidance)
    return found


def _absolute(path: str) -> str:
    """Makes folders absolute, so that results can be scored from elsewhere; packaged names stay."""
    return str(Path(path).resolve()) if Path(path).exists() else path


def run(plan: Plan, out: Path, options) -> dict | None:
    """Evaluates into the folder `out`, loading the model only if something is missing there."""
    settings = dict(guidance_scale=rule_of(plan.guidance))
    if plan.generated_by:
        settings = dict(guidance_scale=float(plan.guidance), quality=options.quality)
    elif plan.sampler != "tokens":
        settings |= dict(num_inference_steps=plan.steps, sampler=plan.sampler)
        settings |= dict(grid=read_grid(plan.grid), first_block_cache=plan.reuse)

    if plan.best_of > 1:
        settings |= dict(best_of=plan.best_of, verifier=plan.verifier)

    def load():
        pipe = load_model.load(options, options.lora)
        pipe.set_progress_bar_config(disable=True)  # the runner has a bar of its own
        return pipe

    return runner.run(load, plan, out, settings)


def results(path: Path, folder: Path) -> dict:
    """Returns the report of an official evaluator's file about the images in this folder."""
    held = plans.read(folder)
    official_results.take(path, folder, held.task)
    return rescore(folder)


def compare(a: Path, b: Path) -> str:
    return report_comparison.terminal(report.load(a), report.load(b))


def tell_comparison(a: Path, b: Path) -> dict:
    """Prints the comparison and returns its rows."""
    print(compare(a, b))
    return {"rows": report_comparison.compare(report.load(a), report.load(b))}


def publish(result: dict | None, folder: Path, draw: bool) -> dict:
    """Prints the report, writes it into the folder, and returns it with its file names.

    Without a report, as in other processes, it does nothing.
    """
    if result is None:
        return {}
    print(report.terminal(result))
    made = report.save(result, folder)
    if draw:
        from janusflow.evaluation import figures

        made += figures.draw(result, folder)
    print(*made, sep="\n")
    return result | {"files": made}
