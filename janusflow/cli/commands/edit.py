"""`janusflow edit`: edits an image to follow a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from janusflow.cli import shared_options as o
from janusflow.cli.command import command
from janusflow.cli.save_images import Out, check_seed, output
from janusflow.cli.shared_options import OUTPUT, option, path
from janusflow.cli.terminal import importing

EDITING = "Editing"
OWN = ("strength", "mask_image", "invert", "source_prompt", "seed", "model", "lora", "sampler")


@dataclass(frozen=True, kw_only=True)
class Options(o.Adapted):
    """The options of `janusflow edit`."""

    image: Annotated[
        Path, typer.Argument(help="Edits this image file.", parser=path, metavar="IMAGE")
    ]
    prompt: Annotated[str, typer.Argument(help="Describes what the image should become.")]
    out: Out = "out.png"
    strength: Annotated[
        float,
        option(
            help="Sets how much of the image changes: near 0 almost nothing, 1 everything.",
            panel=EDITING,
        ),
    ] = 0.6
    mask_image: Annotated[
        Path | None,
        option(
            help="Changes only the white area of this mask image, which has the same size; "
            "the black area stays.",
            panel=EDITING,
            parser=path,
            metavar="PATH",
        ),
    ] = None
    invert: Annotated[
        bool,
        option(
            "--invert",
            help="Starts from the noise that the flow maps to the image, found by "
            "integrating backwards (inversion).",
            panel=EDITING,
        ),
    ] = False
    source_prompt: Annotated[
        str | None, option(help="Describes what the image shows now, for --invert.", panel=EDITING)
    ] = None
    seed: Annotated[
        int | None,
        option(help="Seeds the noise, unless --invert is given. The default is 0.", panel=OUTPUT),
    ] = None
    num_inference_steps: Annotated[
        int,
        option(
            "--steps",
            help="Sets the number of steps from noise to image; the fraction --strength of "
            "them is taken.",
            panel=o.SAMPLING,
        ),
    ] = 30
    sampler: Annotated[
        str,
        option(
            help="Integrates with this solver; `janusflow samplers` lists all.",
            panel=o.SAMPLING,
            autocompletion=o.names.samplers,
        ),
    ] = "euler"
    grid: o.Grid = None
    guidance_scale: Annotated[
        str,
        option(
            help="Sets the guidance weight (1 means no guidance), or a guidance rule; "
            "`janusflow rules` lists the rules.",
            panel=o.SAMPLING,
            autocompletion=o.names.rules,
        ),
    ] = "2"
    negative_prompt: o.NegativePrompt = None
    height: o.Height = None
    width: o.Width = None


@command("edit", panel="Images and answers", plugins=True)
def edit(options: Options) -> dict:
    """Edits an image by partial noising, by inversion, or inside a mask."""
    with importing():
        from janusflow.cli import load_model
        from janusflow.utils import images

    seed, arguments = _checked(options)
    place = output(options.out)
    image = images.read(options.image)
    area = images.read(options.mask_image) if options.mask_image else None
    pipe = load_model.load(options, options.lora)
    made = pipe.edit(image, options.prompt, mask_image=area, **arguments)
    told = {name: getattr(options, name) for name in OWN}
    told |= dict(prompt=options.prompt, image=options.image, seed=seed, calls=made.calls)
    told |= dict(num_inference_steps=options.num_inference_steps, grid=options.grid)
    told |= dict(guidance_scale=options.guidance_scale, negative_prompt=options.negative_prompt)
    return place.write(made.images, [{k: v for k, v in told.items() if v is not None}])


def _checked(options: Options) -> tuple[int | None, dict]:
    """Returns seed and pipeline arguments.

    Raises ValueError for what can be refused without a model.
    """
    import torch

    from janusflow.cli.model_families import check_sides, check_steps
    from janusflow.pipelines import auto_pipeline, editing
    from janusflow.pipelines.presets import read_grid
    from janusflow.pipelines.time_grid import time_grid
    from janusflow.utils import safe_io
    from samplers.core import find

    if auto_pipeline.family(options.model) == auto_pipeline.PRO:
        raise ValueError("edit goes along a flow, which Janus-Pro has not; choose a JanusFlow")
    safe_io.check_prompt(options.negative_prompt or "", "--negative-prompt")
    safe_io.check_prompt(options.prompt, "the prompt")
    if not options.prompt.strip():
        raise ValueError("the prompt is empty; say what the image should become")
    check_sides(options)
    grid = read_grid(options.grid)
    time_grid(find(options.sampler), check_steps(options.num_inference_steps), grid)
    seed = 0 if options.seed is None and not options.invert else options.seed
    check_seed(seed or 0)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    editing.check_edit(options.strength, options.invert, options.source_prompt, generator)
    given = ("strength", "invert", "source_prompt", "negative_prompt", "height", "width", "sampler")
    arguments = {name: getattr(options, name) for name in given}
    arguments |= dict(num_inference_steps=options.num_inference_steps, grid=grid)
    arguments |= dict(guidance_scale=o.guidance(options.guidance_scale), generator=generator)
    return seed, arguments
