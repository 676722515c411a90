"""`janusflow edit`: edits an image to follow a prompt."""

from dataclasses import dataclass
from pathlib import Path

from janusflow.cli import shared_options as o
from janusflow.cli.command import command
from janusflow.cli.save_images import Out, check_seed, output
from janusflow.cli.shared_options import OUTPUT, Panel, argument, path
from janusflow.cli.terminal import importing

EDITING = Panel("Editing")
OWN = ("strength", "mask_image", "invert", "source_prompt", "seed", "model", "lora", "sampler")


@dataclass(frozen=True, kw_only=True)
class Options(o.AdapterOptions):
    """The options of `janusflow edit`."""

    image: Path = argument("Edits this image file.", parser=path, metavar="IMAGE")
    prompt: str = argument("Describes what the image should become.")
    out: Out = "out.png"
    strength: float = EDITING.option(
        "Sets how much of the image changes: near 0 almost nothing, 1 everything.", default=0.6
    )
    mask_image: Path | None = EDITING.path(
        "Changes only the white area of this mask image, which has the same size; the black "
        "area stays."
    )
    invert: bool = EDITING.option(
        "Starts from the noise that the flow maps to the image, found by integrating "
        "backwards (inversion).",
        "--invert",
        default=False,
    )
    source_prompt: str | None = EDITING.option("Describes what the image shows now, for --invert.")
    seed: int | None = OUTPUT.option("Seeds the noise, unless --invert is given. The default is 0.")
    num_inference_steps: int = o.SAMPLING.option(
        "Sets the number of steps from noise to image; the fraction --strength of them is taken.",
        "--steps",
        default=30,
    )
    sampler: str = o.SAMPLING.option(
        "Integrates with this solver; `janusflow samplers` lists all.",
        default="euler",
        autocompletion=o.names.samplers,
    )
    grid: o.Grid = None
    guidance_scale: str = o.SAMPLING.option(
        "Sets the guidance weight (1 means no guidance), or a guidance rule; `janusflow "
        "rules` lists the rules.",
        default="2",
        autocompletion=o.names.rules,
    )
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
    area = images.read_mask(options.mask_image) if options.mask_image else None
    place.check_inputs(options.image, options.mask_image)
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

    from janusflow.cli.model_families import check_flow, check_sides
    from janusflow.pipelines import editing
    from janusflow.pipelines.guided_velocity import rule_of
    from janusflow.pipelines.presets import read_grid
    from janusflow.pipelines.time_grid import time_grid
    from janusflow.utils import limits, safe_io
    from samplers.core import find

    check_flow(options.model, "edit needs")
    safe_io.check_prompt(options.negative_prompt or "", "--negative-prompt")
    safe_io.check_prompt(options.prompt, "the prompt")
    if options.prompt.strip() in ("", "-"):
        raise ValueError(f"the prompt is {options.prompt!r}; say what the image should become")
    check_sides(options)
    grid = read_grid(options.grid)
    limits.whole(options.num_inference_steps, "--steps", "number", optional=True)
    time_grid(find(options.sampler), options.num_inference_steps, grid)
    seed = 0 if options.seed is None and not options.invert else options.seed
    check_seed(seed or 0)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    editing.check_edit(options.strength, options.invert, options.source_prompt, generator)
    given = ("strength", "invert", "source_prompt", "negative_prompt", "height", "width", "sampler")
    arguments = {name: getattr(options, name) for name in given}
    arguments |= dict(num_inference_steps=options.num_inference_steps, grid=grid)
    arguments |= dict(guidance_scale=rule_of(options.guidance_scale), generator=generator)
    return seed, arguments
