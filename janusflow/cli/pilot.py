"""The command `janusflow pilot`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from janusflow.cli.options import DEFAULT, Device, Dtype, Model, OwnSampler, OwnSteps, Quality, Vae


def pilot(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A .json; the model's own folder.")
    ] = None,
    model: Model = DEFAULT,
    vae: Vae = None,
    quality: Quality = "fast",
    steps: OwnSteps = None,
    sampler: OwnSampler = None,
    guidance: Annotated[float, typer.Option(help="A weight.")] = 2.0,
    until: Annotated[
        float | None, typer.Option(help="The time after which nothing guides; the quality's.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="File with one prompt a line; training scenes.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Prompts that are flown, all at once.")] = 24,
    looks: Annotated[int | None, typer.Option(help="Grids that are tried.")] = None,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> dict:
    """Places a quality's few calls for a model: a grid that its presets then use."""
    from tqdm import tqdm

    from janusflow.cli import pilot_grid
    from janusflow.pipelines import auto, image_io
    from janusflow.pipelines.presets import grid_file, grid_text, resolve
    from janusflow.utils import limits, safe_io
    from janusflow.utils.hub import PACKAGED, relist

    if auto.family(model) == auto.PRO:
        raise ValueError("pilot places the calls of a flow, which Janus-Pro has not")
    resolve(quality, sampler=sampler, steps=steps).path()
    if until is not None and not 0 <= until <= 1:
        raise ValueError(f"--until is {until:g}; expected a time from 0 to 1")
    for name, number in (("--samples", samples), ("--looks", looks or 3)):
        if not 3 <= number <= limits.most("number"):
            raise ValueError(f"{name} is {number}; expected 3 to {limits.most('number')}")
    if out is None and (model in PACKAGED or not Path(model).is_dir()):
        raise ValueError(f"{model} is no folder of yours; name the file with --out")
    out = out or grid_file(Path(model), quality)
    image_io.check_folder(out.parent)
    if out.suffix != ".json":
        raise ValueError(f"--out is {str(out)!r}; expected a .json")
    texts = safe_io.read_prompts(prompts) if prompts else pilot_grid.scene_prompts(samples)
    pipe = image_io.load(model, vae, device, dtype)
    options = dict(steps=steps, sampler=sampler, guidance_scale=guidance, until=until)
    options |= dict(seed=seed, looks=looks)
    about = 64 + (looks or 100) * resolve(quality, sampler=sampler, steps=steps).steps
    with tqdm(total=about, desc="evaluations", disable=None) as bar:
        found = pilot_grid.place(pipe, texts[:samples], quality, **options, watch=bar.update)
    found.save(out)
    relist(out.parent)
    print(f"{found.solver} at {grid_text(found.ts)}")
    print(f"error {found.error:.3g}, on the solver's own grid {found.before:.3g}; {out}")
    return dict(file=out, times=list(found.times), error=found.error, before=found.before)
