"""What `janusflow evaluate` does with its options: plan, run, print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from janusflow.evaluation import comparison, provenance, report, runner
from janusflow.evaluation import plan as plans
from janusflow.evaluation.plan import Plan
from janusflow.evaluation.runner import rescore
from janusflow.evaluation.tasks import official_results
from janusflow.models.autoencoder_loading import locate_autoencoder
from janusflow.pipelines import auto, image_io
from janusflow.pipelines.outputs import time_grid
from janusflow.pipelines.presets import grid_text, read_grid, read_grids, resolve
from janusflow.scenes.world import SPLITS
from janusflow.utils.devices import pick_device, pick_dtype, place, written
from janusflow.utils.hub import locate
from samplers.core import find

__all__ = ["compare", "plan", "publish", "rescore", "run", "tell_comparison", "way"]


def way(
    model: str,
    quality: str,
    sampler: str | None,
    steps: int | None,
    grid: str | None,
    guidance: str,
) -> dict:
    """How pictures are made, as a plan tells it; Janus-Pro's tokens have no solver and no times."""
    if auto.family(model) == auto.PRO:
        return dict(
            sampler="tokens", grid="in reading order, temperature 1", steps=1, guidance=guidance
        )
    given = dict(sampler=sampler, steps=steps, grid=read_grid(grid))
    chosen = resolve(quality, read_grids(locate(model)), **given)
    solver = find(chosen.sampler)
    time_grid(solver, 1, chosen.grid)
    return dict(
        sampler=chosen.sampler,
        grid=grid_text(chosen.grid) or solver.grid,
        steps=chosen.steps,
        guidance=chosen.written(guidance),
    )


def plan(
    task: str,
    splits: Sequence[str],
    model: str,
    vae: str | None,
    lora: str | None,
    device: str,
    dtype: str,
    paths: dict[str, str],
    **others,
) -> Plan:
    """Checks all options before the model is loaded; ValueError for the first that does not fit.

    `others` are the plan's own fields: those of `way`, numbers, and `reuse`.
    """
    if "all" in splits:
        splits = [name for name in SPLITS if name != "train"]
    digests = runner.task(task).inputs(paths)
    folder, chosen = locate(model), pick_device(device)
    return Plan(
        task=task,
        model=model,
        weights=provenance.weights(
            folder,
            locate_autoencoder(vae) if vae else None,
            locate(lora, files=["adapter_*"]) if lora else None,
        ),
        lora=lora or "",
        side=auto.side(folder),
        dtype=written(pick_dtype(dtype, chosen), dtype),
        device=place(chosen),
        splits=tuple(dict.fromkeys(splits)),
        paths={name: _absolute(path) for name, path in paths.items()},
        digests=digests,
        **others,
    )


def _absolute(path: str) -> str:
    """So that a folder can be scored from elsewhere; names of packaged models stay."""
    return str(Path(path).resolve()) if Path(path).exists() else path


def run(plan: Plan, out: Path, vae: str | None, device: str, dtype: str, guidance) -> dict | None:
    """Evaluates into the folder `out`, loading the model where anything is missing there."""
    settings = dict(guidance_scale=guidance)
    if plan.sampler != "tokens":
        settings |= dict(num_inference_steps=plan.steps, sampler=plan.sampler)
        settings |= dict(grid=read_grid(plan.grid), reuse=plan.reuse)

    def load():
        return image_io.load(plan.model, vae, device, dtype, plan.lora or None)

    return runner.run(load, plan, out, settings)


def results(path: Path, folder: Path) -> dict:
    """The report of an official evaluator's file on the pictures that this folder holds."""
    held = plans.read(folder)
    official_results.take(path, folder, held.task)
    return rescore(folder)


def compare(a: Path, b: Path) -> str:
    return comparison.terminal(report.load(a), report.load(b))


def tell_comparison(a: Path, b: Path) -> dict:
    """Prints the comparison and gives its rows."""
    print(compare(a, b))
    return {"rows": comparison.compare(report.load(a), report.load(b))}


def publish(result: dict | None, folder: Path, draw: bool) -> dict:
    """Prints the report, writes it into the folder, and gives it with the names of its files;
    without one, in other processes, nothing.
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
