"""`janusflow bench`: three measurements of a model, each a command of its own.

`samplers` measures error against network evaluations, `speed` the seconds per image of every
quality, and `transformers` Janus-Pro's speed relative to transformers' own loop.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer

from janusflow.cli import shared_options as o
from janusflow.cli.command import HELP, Group, command
from janusflow.cli.save_images import check_figure, check_file, check_folder, check_seed
from janusflow.cli.shared_options import MODEL, OUTPUT, SAMPLING
from janusflow.cli.terminal import importing, tell
from janusflow.utils import limits

PROMPT = "a red circle left of a blue square"
TRANSFORMERS = "use janusflow bench transformers --model {}"
MOST_ROUNDS = 10_000
Prompts = Annotated[
    list[str] | None,
    SAMPLING.info(f"Uses this prompt; repeat for several. The default is {PROMPT!r}."),
]
Save = Annotated[
    Path | None, OUTPUT.path_info("Writes the results and their protocol to this JSON file.")
]


@dataclass(frozen=True, kw_only=True)
class Samplers(o.Placement):
    """The options of `janusflow bench samplers`."""

    prompt: Prompts = None
    solvers: str | None = SAMPLING.option(
        "Compares these solvers, separated by commas. By default all solvers that take these "
        "evaluations are compared."
    )
    nfe: str = SAMPLING.option(
        "Compares at these numbers of evaluations of the guided velocity, separated by commas; "
        "each costs two network evaluations, or one without guidance.",
        default="4,8,16,32",
    )
    guidance_scale: o.GuidanceScale = None
    samples: int = SAMPLING.option("Integrates this many noise samples for each prompt.", default=4)
    seed: o.Seed = 0
    reference: int = SAMPLING.option(
        "Uses the result of rk4 with this many evaluations as the reference.", default=256
    )
    peers: bool = SAMPLING.option("Also compares the solvers of other libraries.", default=True)
    pilot: bool = SAMPLING.option(
        "Also runs each solver on a time grid that `janusflow pilot` would find.", default=False
    )
    csv: Path | None = OUTPUT.path("Writes the results to this CSV file.")
    save: Save = None
    plot: Path | None = OUTPUT.path(
        "Saves a figure of error against evaluations to this .png, .svg or .pdf file."
    )


@command("samplers", plugins=True)
def samplers(options: Samplers) -> dict:
    """Measures each solver's error against its evaluations of a JanusFlow's guided velocity."""
    with importing():
        from janusflow.bench import solvers as bench
        from janusflow.cli import load_model, model_families
        from janusflow.pipelines.guided_velocity import rule_of
        from samplers.core import find

    instead = TRANSFORMERS.format(options.model)
    model_families.check_flow(options.model, "bench samplers compares solvers of", instead)
    names = options.solvers.split(",") if options.solvers else []
    arguments = dict(
        calls=numbers("--nfe", options.nfe), solvers=[find(name.strip()) for name in names] or None
    )
    arguments |= {n: getattr(options, n) for n in ("samples", "seed", "reference", "pilot")}
    rule = rule_of(options.guidance_scale or "2")
    _check(options)
    pipe = load_model.load(options)
    texts = options.prompt or [PROMPT]
    found = bench.run(pipe, texts, rule, others=options.peers, name=options.model, **arguments)
    print(found)
    print(f"\nreference: {found.protocol['reference']} (RMS)")
    cost = found.protocol["network_evaluations_per_call"]
    print(f"each evaluation of the guided velocity: {cost:g} network evaluations")
    files = ((options.csv, found.to_csv), (options.save, found.to_json), (options.plot, found.plot))
    for place, write in files:
        if place is not None:
            write(place)
    return found.content()


@dataclass(frozen=True, kw_only=True)
class Speed(o.Placement):
    """The options of `janusflow bench speed`."""

    prompt: Prompts = None
    seed: o.Seed = 0
    rounds: int = SAMPLING.option(
        "Measures each variant this many times, alternating between them.", default=5
    )
    compile: bool = MODEL.option(
        "Also measures the model compiled by torch.compile.", "--compile", default=False
    )
    save: Save = None


@command("speed")
def speed(options: Speed) -> dict:
    """Times every quality, alternating with the published sampler, in seconds per image."""
    with importing():
        import json

        from janusflow.bench import speed
        from janusflow.cli import load_model, model_families
        from janusflow.utils import locked_dir

    instead = TRANSFORMERS.format(options.model)
    model_families.check_flow(options.model, "bench speed times qualities of", instead)
    limits.within("--rounds", options.rounds, 1, MOST_ROUNDS)
    _check(options)
    pipe = load_model.load(options)
    pipe.set_progress_bar_config(disable=True)
    texts = options.prompt or [PROMPT]
    about = dict(rounds=options.rounds, seed=options.seed, model=options.model)
    found = speed.of_pipeline(pipe, texts, compile=options.compile, **about)
    print(speed.table(found))
    if options.save:
        locked_dir.write(options.save, json.dumps(found, indent=1))
    return found


@dataclass(frozen=True, kw_only=True)
class Transformers:
    """The options of `janusflow bench transformers`."""

    model: o.Model = "janusflow/scenes-pro"
    prompt: Prompts = None
    guidance_scale: float = SAMPLING.option(
        "Sets the guidance weight; 1 means no guidance.", default=5.0
    )
    rounds: int = SAMPLING.option(
        "Measures both implementations this many times, alternating between them.", default=5
    )
    device: o.Device = "auto"
    dtype: o.Dtype = "auto"
    vae: Annotated[str | None, typer.Option(hidden=True)] = None


@command("transformers")
def transformers(options: Transformers) -> dict:
    """Times Janus-Pro, alternating with transformers' own loop on the same weights."""
    with importing():
        from janusflow.bench import janus_pro as bench
        from janusflow.cli import load_model
        from janusflow.models.family import PRO, family

    if family(options.model) != PRO:
        raise ValueError(
            f"bench transformers needs a Janus-Pro, and {options.model} is a JanusFlow; take "
            "janusflow bench speed"
        )
    limits.within("--rounds", options.rounds, 1, MOST_ROUNDS)
    pipe = load_model.load(options)
    pipe.set_progress_bar_config(disable=True)
    texts = options.prompt or [PROMPT]
    found = bench.compare(pipe, texts, options.rounds, options.guidance_scale)
    print(bench.table(found, len(texts)))
    return found


def _check(options: Samplers | Speed) -> None:
    check_seed(options.seed)
    for name in ("csv", "save", "plot"):
        place = getattr(options, name, None)
        if place is not None:
            check_folder(place.parent)
            check_file(place)
    if getattr(options, "plot", None) is not None:
        check_figure(options.plot, "--plot")


def numbers(name: str, text: str) -> list[int]:
    """Parses comma-separated whole numbers. Raises ValueError for others and beyond the limit."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and int(part[:19]) > 0 for part in parts):
        raise ValueError(f"{name} is {text!r:.80}; expected numbers of at least 1, as in 4,8,16")
    for part in parts:
        limits.hold("number", int(part[:19]), f"{name} holds {part:.40}")
    return [int(part) for part in parts]


class Bench(Group):
    """A group that also accepts `janusflow bench --...` of version 0.1, where the model chose the
    measurement.
    """

    def parse_args(self, ctx, args):
        return super().parse_args(ctx, _chosen(list(args)))


def _chosen(args: list[str]) -> list[str]:
    """Returns the arguments with the command that version 0.1 would have run."""
    if args and (not args[0].startswith("-") or args[0] in ("-h", "--help")):
        return args
    chosen = "samplers"
    if "--speed" in args:
        args, chosen = [word for word in args if word != "--speed"], "speed"
    elif _model(args):
        from janusflow.models.family import PRO, family

        chosen = "transformers" if family(_model(args)) == PRO else chosen
    tell(f"warning: write janusflow bench {chosen}; bench alone ends with the next release")
    return [chosen, *args]


def _model(args: list[str]) -> str | None:
    for word, after in pairwise([*args, ""]):
        name, equals, value = word.partition("=")
        if name == "--model":
            return value if equals else after
    return None


app = typer.Typer(
    cls=Bench, context_settings=HELP, help="Measures samplers and speed on this machine."
)
for each in (samplers, speed, transformers):
    each.mount(app)
