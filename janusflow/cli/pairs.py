"""`janusflow pairs`: noise, and what a model makes of it, to train straighter flows on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def pairs(
    model: Annotated[str, typer.Argument(help="Packaged model, folder or hub id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the pairs.")],
    prompts: Annotated[
        Path | None,
        typer.Option(help="Text file, one prompt a line; prompts of the small world unless given."),
    ] = None,
    count: Annotated[int, typer.Option(help="Pairs, over all prompts in turn.")] = 1024,
    sampler: Annotated[str, typer.Option(help="A name of samplers.SOLVERS.")] = "abm",
    steps: Annotated[int, typer.Option(help="Of the sampler.")] = 8,
    guidance_scale: Annotated[float, typer.Option(help="Burnt in; 1 for none.")] = 2.0,
    guidance_end: Annotated[float, typer.Option(help="Time until which guidance acts.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    part: Annotated[
        str, typer.Option(help="Which share of the files to make, as 0/4 of four processes.")
    ] = "0/1",
    threads: Annotated[int | None, typer.Option(help="Of torch; all cores unless told.")] = None,
) -> dict:
    """Integrates noise to data and keeps both, with the prompts, for the objective reflow.

    Files that are there stay, so a run that was cut off is resumed. Prints how straight the flow is
    along them: 0 for straight ways at even speed.
    """
    from janusflow.utils.devices import use_threads

    try:
        from janusflow.training import distillation
    except ModuleNotFoundError as error:
        needs = f"training needs {error.name}: pip install 'janusflow[train]'"
        raise ModuleNotFoundError(needs, name=error.name) from error

    use_threads(threads)
    how = dict(sampler=sampler, steps=steps, guidance=guidance_scale, guided_until=guidance_end)
    found = distillation.pairs(model, out, count, prompts, seed, _part(part), **how)
    print(f"{found['made']} pairs in {out}, straightness {found['straightness']:.4f}")
    return dict(out=out) | found


def _part(text: str) -> tuple[int, int]:
    number, slash, parts = text.partition("/")
    if slash and number.isdecimal() and parts.isdecimal() and int(number) < int(parts):
        return int(number), int(parts)
    raise ValueError(f"--part is {text!r:.40}; expected a number below another, as in 0/4")
