"""The data of a recipe: the world of scenes, or a collection's captioned folder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from janusflow.data.collections.batches import read_items, read_pixels
from janusflow.models.autoencoder_loading import check_vae, load_vae
from janusflow.models.janusflow.configuration import JanusFlowConfig
from janusflow.models.janusflow.tokenizer import BOS, EOS, IMAGE, IMAGE_END, IMAGE_START
from janusflow.models.processor_files import tokenizer_in
from janusflow.scenes.shapes import SIDE
from janusflow.scenes.world import scene
from janusflow.training import collection_model, init_checkpoint
from janusflow.training.held_out import HeldOut, of_world
from janusflow.training.recipes import Recipe
from janusflow.training.trainer import BatchSource

SPLITS = ("train", "test")
NEEDED = (BOS, EOS, IMAGE, IMAGE_START, IMAGE_END)  # tokens of a sample


class World(Protocol):
    """A recipe's data: initial model, samples, prompts and held-out data; `base` is a folder."""

    before: str  # what is trained before the first step, or ""

    def check(self, base: Path) -> None: ...
    def first_model(self, base: Path, workers: int = 0) -> None: ...
    def untrained(self, base: Path) -> None: ...
    def batches(self, base: Path) -> BatchSource: ...
    def prompts(self, count: int) -> list[str]: ...
    def held_out(self, base: Path, count: int) -> HeldOut: ...


@dataclass(frozen=True)
class Scenes:
    """The world of scenes, generated on demand."""

    recipe: Recipe

    @property
    def before(self) -> str:
        steps, batch = self.recipe.vision_steps, self.recipe.vision_batch
        return f"vision encoder, {steps:,} steps of {batch} scenes"

    def check(self, base: Path) -> None:
        """Raises ValueError if the model in `base` cannot be trained on scenes."""
        check_model(base, SIDE, "the world of scenes draws")

    def first_model(self, base: Path, workers: int = 0) -> None:
        init_checkpoint.first_model(self.recipe, base, workers)

    def untrained(self, base: Path) -> None:
        init_checkpoint.first_model(replace(self.recipe, vision_steps=0), base)

    def batches(self, base: Path) -> BatchSource:
        return init_checkpoint.batches(base, self.recipe)

    def prompts(self, count: int) -> list[str]:
        return [scene("test", i).caption for i in range(count)]

    def held_out(self, base: Path, count: int) -> HeldOut:
        return of_world(base, count)


@dataclass(frozen=True)
class Folder:
    """A folder that `janusflow data` wrote."""

    recipe: Recipe
    folder: Path
    before = ""

    def check(self, base: Path) -> None:
        """Raises ValueError if the model in `base` cannot be trained on the folder's images."""
        size = read_pixels(self.folder, read_items(self.folder, "train")[:1]).shape[-1]
        check_model(base, size, f"{str(self.folder)!r:.200} holds")

    def first_model(self, base: Path, workers: int = 0) -> None:  # noqa: ARG002 (nothing to draw)
        collection_model.first_model(self.recipe, self.folder, base)

    untrained = first_model

    def batches(self, base: Path) -> BatchSource:
        return collection_model.batches(base, self.recipe, self.folder)

    def prompts(self, count: int) -> list[str]:
        items = read_items(self.folder, "train", self.recipe.spoken[:1])
        return [item.name for item in items[:count]]

    def held_out(self, base: Path, count: int) -> HeldOut:
        source = collection_model.batches(base, self.recipe, self.folder, "test")
        samples = [source.image(i) for i in range(count)]
        return HeldOut(samples, (), load_vae(base, None))


def check_model(base: Path, size: int, whose: str) -> None:
    """Raises ValueError if a model reads images of another size, or lacks what samples are made
    with: an autoencoder that fits, and the special tokens.
    """
    config = JanusFlowConfig.from_pretrained(base)
    if config.vision.image_size != size:
        raise ValueError(
            f"{whose} images of {size} pixels, and the model in {str(base)!r:.200} reads images of "
            f"{config.vision.image_size}; start from another model"
        )
    check_vae(load_vae(base, None), config)
    tokenizer = tokenizer_in(base)
    if missing := [t for t in NEEDED if tokenizer.token_to_id(t) is None]:
        raise ValueError(
            f"the tokenizer in {str(base)!r:.200} lacks {missing[0]}; start from another model"
        )


def world_of(recipe: Recipe, data: Sequence[Path] = ()) -> World:
    """Returns a recipe's data. Raises ValueError for a missing folder or one of another recipe."""
    if not recipe.collection:
        if data:
            raise ValueError(
                "a recipe of scenes creates its own samples; leave out --data, which is for "
                "--stage and for recipes of a collection"
            )
        return Scenes(recipe)
    name, size = recipe.collection, recipe.image_size
    ask = f"janusflow data {name} -o {name} --size {size} --keywords"
    if len(data) != 1:
        raise ValueError(
            f"the recipe got {len(data)} folders by --data; give one, which `{ask}` writes"
        )
    if missing := [s for s in SPLITS if not (data[0] / f"{s}.jsonl").is_file()]:
        raise ValueError(f"{str(data[0])!r} holds no {missing[0]}.jsonl; write it by `{ask}`")
    return Folder(recipe, data[0])
