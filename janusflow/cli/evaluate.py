"""The command `janusflow evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from janusflow.cli.options import (
    DEFAULT,
    Device,
    Dtype,
    Grid,
    Guidance,
    Lora,
    Model,
    OwnSampler,
    OwnSteps,
    Quality,
    Reuse,
    Vae,
)
from janusflow.cli.options import guidance as parse_guidance


def evaluate(
    ctx: typer.Context,
    task: Annotated[
        str, typer.Option(help="scenes, scenes-vqa, judge, round-trip, geneval, dpg, fid, kid.")
    ] = "scenes",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder; by default evaluation/TASK.")
    ] = None,
    split: Annotated[
        list[str], typer.Option(help="test, pairs, counts, relations, long, paraphrases; or all.")
    ] = ["test"],  # noqa: B006 (typer copies it)
    prompts: Annotated[
        str, typer.Option(help="How many per category or template; or a file or folder of them.")
    ] = "100",
    seeds: Annotated[int, typer.Option(help="Pictures per prompt.")] = 4,
    rescore: Annotated[Path | None, typer.Option(help="Score this folder's answers anew.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Two report.json: paired tests.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="Read an official evaluator's file on --out.")
    ] = None,
    reference: Annotated[Path | None, typer.Option(help="fid, kid: real pictures.")] = None,
    pictures: Annotated[Path | None, typer.Option(help="fid, kid: pictures to measure.")] = None,
    features: Annotated[
        str | None, typer.Option(help="fid, kid: a model, or Inception's .pth; the model's own.")
    ] = None,
    draw: Annotated[bool, typer.Option(help="Draw bars and failures.")] = True,
    model: Model = DEFAULT,
    vae: Vae = None,
    lora: Lora = None,
    quality: Quality = "exact",
    steps: OwnSteps = None,
    guidance: Guidance = "2",
    sampler: OwnSampler = None,
    grid: Grid = None,
    reuse: Reuse = None,
    batch: Annotated[int, typer.Option(help="Pictures or questions at once.")] = 16,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> dict:
    """Scores a model, or two reports against each other; see docs/evaluation.md."""
    from janusflow.cli import evaluate_actions, families
    from janusflow.pipelines import auto

    if compare:
        return evaluate_actions.tell_comparison(*compare)
    if rescore:
        return evaluate_actions.publish(evaluate_actions.rescore(rescore), rescore, draw)
    if results:
        folder = out or Path("evaluation", task)
        return evaluate_actions.publish(evaluate_actions.results(results, folder), folder, draw)
    kind, written = auto.family(model), families.given(ctx)
    families.check(kind, written)
    guidance = families.guidance(kind, guidance, written)
    made = evaluate_actions.way(model, quality, sampler, steps, grid, guidance)
    given = dict(reference=reference, pictures=pictures, features=features)
    made |= dict(seeds=seeds, batch=batch, reuse=reuse)
    if prompts.isdecimal():
        made["prompts"] = int(prompts)
    else:
        given["prompts"] = prompts
    paths = {name: str(value) for name, value in given.items() if value is not None}
    plan = evaluate_actions.plan(task, split, model, vae, lora, device, dtype, paths, **made)
    rule, out = parse_guidance(plan.guidance), out or Path("evaluation", task)
    return evaluate_actions.publish(
        evaluate_actions.run(plan, out, vae, device, dtype, rule), out, draw
    )
