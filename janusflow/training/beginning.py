"""Where a run begins: with a model, or with another run's averaged weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from janusflow.models.janusflow.configuration import JanusFlowConfig
from janusflow.models.janusflow.processing import JanusFlowProcessor
from janusflow.training import checkpoints, export, init_checkpoint
from janusflow.training.config_values import today
from janusflow.training.ema import State, load_heads
from janusflow.training.recipes import RECIPES, Recipe
from janusflow.utils.hub import locate
from janusflow.utils.keywords import choice
from janusflow.utils.packaged import DEFAULT

FIRST = ("whitening", "init_std", "vision_steps", "vision_batch", "vision_lr", "vision_contrastive")


def _nothing() -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """A run's initial model: its name in the run's files, and the folder of its weights.

    `write` writes that folder, where the run keeps one of its own; one process calls it. Until then
    `under` holds the same configuration, tokenizer and autoencoder. `run` is another run that this
    one begins with.
    """

    name: str
    under: Path
    folder: Path
    write: Callable[[], object] = _nothing
    run: Path | None = None

    @property
    def is_new(self) -> bool:
        """Whether the run's own model is still to be written."""
        return self.write is not _nothing

    def lend_heads(self, state: State) -> None:
        """Copies what the other run trained beside its model, such as alignment's head."""
        if self.run is not None:
            load_heads(state, checkpoints.latest(self.run)[1])


def of_stage(model: str | None, start: str | Path | None, out: Path) -> Beginning:
    """Returns the beginning of a stage: `model`, or the run or model in `start`.

    A run that has a checkpoint in `out` goes on with the model that it began with. Raises
    ValueError if `start` is neither a run nor a model, or if both are models.
    """
    own, start = out / export.BASE, None if start is None else Path(start)
    begun = start is None or checkpoints.complete(out)
    if model is None and begun and (own / "config.json").is_file():
        return Beginning(name=export.BASE, under=own, folder=own)
    if start is not None and not checkpoints.complete(start):
        if model is not None:
            raise ValueError(f"{start} is a model, and so is --model {model}; give one of them")
        model, start = str(_model(start)), None
    if start is None:
        folder = locate(model or DEFAULT)
        return Beginning(name=export.named_from(model or DEFAULT, out), under=folder, folder=folder)
    return _of_run(start, out, model)


def of_recipe(start: str | Path, out: Path) -> Beginning:
    """Returns the beginning of a recipe that starts from the run or model in `start`.

    `out` gets the model in float32, so that the run's folder holds all that it needs.
    """
    own, start = out / export.BASE, Path(start)
    if checkpoints.complete(out) and (own / "config.json").is_file():
        return Beginning(name=export.BASE, under=own, folder=own)
    if checkpoints.complete(start):
        return _of_run(start, out, None)
    under = locate(_model(start))
    write = lambda: export.store(under, out)  # noqa: E731 (as `_of_run` has it)
    return Beginning(name=export.BASE, under=under, folder=own, write=write)


def _of_run(start: Path, out: Path, model: str | None) -> Beginning:
    under = export.base_of(start, checkpoints.latest(start)[2], model)
    return Beginning(
        name=export.BASE,
        under=under,
        folder=out / export.BASE,
        write=lambda: export.start_from(start, out, model),
        run=start,
    )


def flow_folder(name: str) -> Path:
    """Returns a model's folder. Raises ValueError, before any work, if it holds no JanusFlow or
    lacks a file with which its export would be loaded.
    """
    folder = locate(name)
    processor_of(folder)
    return folder


def processor_of(folder: Path) -> JanusFlowProcessor:
    """Returns the processor of a JanusFlow's folder. Raises ValueError if it does not fit."""
    config = JanusFlowConfig.from_pretrained(folder)  # first, because it knows Janus-Pro
    processor = JanusFlowProcessor.from_pretrained(folder)
    processor.check_fits(config.language_config.vocab_size)
    processor.check_images(config.vision.image_size, config.vision.tokens)
    return processor


def _model(start: Path) -> str:
    """Returns the name of a model. Raises ValueError for a folder that holds none."""
    if start.is_dir() and not export.is_model(start):
        raise ValueError(
            f"{start} holds neither a run's checkpoint nor a model; name a folder that holds one"
        )
    return str(start)


def recipe_of(
    name: str, changes: Mapping[str, object], begun: Beginning | None
) -> tuple[Recipe, dict[str, object]]:
    """Returns a recipe with its changes and with the geometry of the model that the run begins
    with, and the changes that are other settings.
    """
    choice("no recipe named", name, RECIPES)
    recipe, rest = init_checkpoint.with_changes(RECIPES[name], dict(changes))
    if begun is None:
        return recipe, rest
    given = {today(key): value for key, value in changes.items()}
    unused = [key for key in FIRST if key in given]
    if unused and begun.is_new:
        raise ValueError(
            f"{unused[0]} is for a training from random weights; leave it out, because --init-from "
            "brings the vision encoder, the autoencoder and the weights"
        )
    return fitted(recipe, JanusFlowConfig.from_pretrained(begun.under), given), rest


def fitted(recipe: Recipe, config: JanusFlowConfig, changes: Mapping[str, object]) -> Recipe:
    """Returns the recipe with the geometry of the model that a run begins with.

    Raises ValueError if `changes` ask for another geometry.
    """
    text, vision, flow = config.language_config, config.vision, config.generation
    own = dict(
        image_size=vision.image_size,
        hidden=text.hidden_size,
        blocks=text.num_hidden_layers,
        heads=text.num_attention_heads,
        mlp=text.intermediate_size,
        channels=flow.channels,
        vision_width=vision.width,
        vision_blocks=vision.layers,
        vision_heads=vision.heads,
        latent_channels=flow.latent_channels,
    )
    for name, value in own.items():
        if changes.get(name, value) != value:
            raise ValueError(
                f"{name} is {changes[name]!r:.40}, and {value} in the model that --init-from "
                "names; leave it out"
            )
    return replace(recipe, **own)
