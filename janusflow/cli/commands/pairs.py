"""`janusflow pairs`: generates noise-data pairs of a model, to train straighter flows (reflow)."""

from dataclasses import dataclass
from pathlib import Path

from janusflow.cli import shared_options as o
from janusflow.cli import training_runs
from janusflow.cli.command import command
from janusflow.cli.save_images import check_seed
from janusflow.cli.shared_options import OUTPUT, SAMPLING


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `janusflow pairs`."""

    model: o.ModelName
    out: Path = OUTPUT.path("Stores the pairs in this folder.", "--out", "-o", default=...)
    prompts: Path | None = OUTPUT.path(
        "Reads the prompts from this text file, one per line. By default they are training "
        "prompts of coloured shapes."
    )
    count: int = OUTPUT.option(
        "Sets the number of pairs; the prompts are used in turn.", default=1024
    )
    sampler: str = SAMPLING.option(
        "Integrates with this solver; `janusflow samplers` lists all.",
        default="abm",
        autocompletion=o.names.samplers,
    )
    steps: int = SAMPLING.option("Takes this many sampling steps.", default=8)
    guidance_scale: float = SAMPLING.option(
        "Sets the guidance weight of the trajectories whose ends are stored; 1 means no guidance.",
        default=2.0,
    )
    guidance_end: float = SAMPLING.option(
        "Applies guidance until this time, from 0 (noise) to 1 (data).", default=1.0
    )
    seed: o.Seed = 0
    part: str = OUTPUT.option(
        "Computes only this part of the files: 0/4 is the first of four parts.", default="0/1"
    )
    threads: training_runs.Threads = None


@command("pairs", panel="Training and files", plugins=True)
def pairs(options: Options) -> dict:
    """Integrates noise to data and stores both with their prompts, for the objective reflow.

    Existing files are kept, so an interrupted run resumes. It prints the flow's straightness along
    the pairs, which is 0 for straight paths at constant speed.
    """
    with training_runs.training_libraries():
        from janusflow.training import distillation
        from janusflow.utils.devices import use_threads

    use_threads(options.threads)
    check_seed(options.seed)
    if options.count < 1:
        raise ValueError(f"--count is {options.count}; expected at least 1")
    share = _part(options.part)
    how = dict(sampler=options.sampler, steps=options.steps)
    how |= dict(guidance=options.guidance_scale, guided_until=options.guidance_end)
    place = (options.model, options.out, options.count, options.prompts, options.seed)
    found = distillation.pairs(*place, share, **how)
    print(f"{found['made']} pairs in {options.out}, straightness {found['straightness']:.4f}")
    return dict(out=options.out) | found


def _part(text: str) -> tuple[int, int]:
    number, slash, parts = text.partition("/")
    if slash and number.isdecimal() and parts.isdecimal() and int(number) < int(parts):
        return int(number), int(parts)
    raise ValueError(
        f"--part is {text!r:.40}; expected INDEX/COUNT with INDEX below COUNT, such as 0/4"
    )
