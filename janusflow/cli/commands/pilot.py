"""`janusflow pilot`: optimises the times of a quality's few steps for one model."""

from dataclasses import dataclass
from pathlib import Path

from janusflow.cli import shared_options as o
from janusflow.cli.command import command
from janusflow.cli.save_images import check_file, check_folder, check_seed
from janusflow.cli.shared_options import OUTPUT, SAMPLING
from janusflow.cli.terminal import importing


@dataclass(frozen=True, kw_only=True)
class Options(o.Placement):
    """The options of `janusflow pilot`."""

    out: Path | None = OUTPUT.path(
        "Writes the time grid to this .json file. By default it is stored in the model's folder.",
        "--out",
        "-o",
    )
    prompts: Path | None = OUTPUT.path(
        "Reads the prompts from this text file, one per line. By default they are captions of "
        "training scenes."
    )
    quality: str = SAMPLING.option(
        "Optimises the time grid of this quality: exact, high, fast or draft.",
        default="fast",
        autocompletion=o.names.qualities,
    )
    num_inference_steps: o.Steps = None
    sampler: o.Sampler = None
    guidance_scale: float = SAMPLING.option(
        "Sets the guidance weight; 1 means no guidance.", default=2.0
    )
    guidance_end: float | None = SAMPLING.option(
        "Applies guidance until this time, from 0 (noise) to 1 (data). The default is the "
        "quality's."
    )
    samples: int = SAMPLING.option("Measures on this many prompts, computed at once.", default=24)
    max_trials: int | None = SAMPLING.option(
        "Tries at most this many time grids. The default is about 100."
    )
    seed: o.Seed = 0


@command("pilot", panel="Measuring", plugins=True)
def pilot(options: Options) -> dict:
    """Optimises the time grid of a quality for one model, which then uses it."""
    with importing():
        from tqdm import tqdm

        from janusflow.cli import load_model
        from janusflow.cli.commands import pilot_grid
        from janusflow.pipelines import few_step
        from janusflow.pipelines.presets import grid_file, grid_text, resolve
        from janusflow.utils import safe_io
        from janusflow.utils.hub import relist

    out = _checked(options)
    texts = safe_io.read_prompts(options.prompts) if options.prompts else None
    texts = texts or pilot_grid.scene_prompts(options.samples)
    pipe = load_model.load(options)
    own = dict(steps=options.num_inference_steps, sampler=options.sampler)
    about = 64 + (options.max_trials or 100) * resolve(options.quality, **own).steps
    own |= dict(guidance_scale=options.guidance_scale, until=options.guidance_end)
    own |= dict(seed=options.seed, looks=options.max_trials)
    with tqdm(total=about, desc="evaluations", disable=None) as bar:
        found = pilot_grid.place(
            pipe, texts[: options.samples], options.quality, **own, watch=bar.update
        )
    found.save(out)
    if out.name == grid_file(out.parent, options.quality).name:
        few_step.take_back(out.parent, options.quality)
    relist(out.parent)
    print(f"{found.solver} at {grid_text(found.ts)}")
    print(f"error {found.error:.3g}, on the solver's own grid {found.before:.3g}; {out}")
    return dict(file=out, times=list(found.times), error=found.error, before=found.before)


def _checked(options: Options) -> Path:
    """Returns the grid's path. Raises ValueError for what can be refused without a model."""
    from janusflow.cli.model_families import check_flow
    from janusflow.pipelines.presets import grid_file, resolve
    from janusflow.utils import limits
    from janusflow.utils.hub import PACKAGED

    check_flow(options.model, "pilot optimises the time grid of")
    own = dict(steps=options.num_inference_steps, sampler=options.sampler)
    resolve(options.quality, **own).path()
    check_seed(options.seed)
    limits.within("--guidance-end", options.guidance_end, 0, 1)
    limits.within("--samples", options.samples, 3, limits.most("number"))
    limits.within("--max-trials", options.max_trials, 3, limits.most("number"))
    model, out = options.model, options.out
    if out is None and (model in PACKAGED or not Path(model).is_dir()):
        raise ValueError(
            f"{model} is not a local folder, so the grid cannot be stored in it; name a .json file "
            "by --out"
        )
    out = out or grid_file(Path(model), options.quality)
    check_folder(out.parent)
    if out.suffix != ".json":
        raise ValueError(f"--out is {str(out)!r:.200}; expected a file that ends in .json")
    if options.out is not None and out.exists():
        _check_grid(out)
    return out


def _check_grid(out: Path) -> None:
    """Raises ValueError for an existing file that holds no grid, such as a model's config.json."""
    from samplers import PilotGrid

    check_file(out)
    try:
        PilotGrid.load(out)
    except ValueError as error:
        raise ValueError(
            f"--out is {str(out)!r:.200}, which exists and holds no time grid; choose another file"
        ) from error
