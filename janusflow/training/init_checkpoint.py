"""Training on the world of scenes: recipes as settings, the initial model, and the samples."""

import os
from dataclasses import fields, replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from janusflow.models.autoencoder import PatchAutoencoder
from janusflow.models.autoencoder_loading import check_vae, load_vae
from janusflow.models.janusflow.configuration import JanusFlowConfig
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.janusflow.tokenizer import build_tokenizer
from janusflow.models.processor_files import tokenizer_in
from janusflow.scenes.batches import Batches
from janusflow.scenes.patches import pixels
from janusflow.scenes.questions import SPELLINGS, vocabulary
from janusflow.scenes.shapes import render_batch
from janusflow.scenes.world import scene
from janusflow.training import vision_pretraining
from janusflow.training.alignment.repa import Alignment
from janusflow.training.config import Settings, changed
from janusflow.training.config_stages import ALL_BUT_VISION, Stage
from janusflow.training.config_values import as_hint, hints_of, today
from janusflow.training.recipes import Recipe
from janusflow.utils.atomic_io import readable
from janusflow.utils.devices import pick_device
from janusflow.utils.text import explained
from samplers import PilotGrid


def of_recipe(recipe: Recipe) -> Settings:
    """Returns a recipe's settings: the paper's second stage with the recipe's numbers."""
    stage = Stage(
        trainable=("vision_encoder", *ALL_BUT_VISION) if recipe.collection else ALL_BUT_VISION,
        lr=recipe.lr,
        warmup=recipe.warmup,
        steps=recipe.steps,
        batch=recipe.images + recipe.questions,
        mixture={"generation": recipe.images, "understanding": recipe.questions},
        schedule="linear",
        decay_from=recipe.decay_from,
        optimizer=recipe.optimizer,
        betas=recipe.betas,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        ema=recipe.ema,
        cond_dropout=recipe.cond_dropout,
        density_mean=recipe.density_mean,
        density_std=recipe.density_std,
        next_token=recipe.answer,
        seed=recipe.seed,
    )
    pulled = Alignment(weight=recipe.alignment, tap=recipe.tap) if recipe.alignment else None
    return Settings(training=stage, alignment=pulled)


def of_objective(
    stage: Stage, folder: Path, name: str, save_every: int, sampled: bool, guided: bool, **own
) -> Settings:
    """Returns the settings of an objective that trains the model in `folder` without alignment.

    With `sampled` its images are sampled on the model's own grid of the quality "fast", if there is
    one, and with `guided` they are guided as long as that quality is. `own` are further options.
    """
    grid = folder / "pilot-fast.json"
    if sampled and grid.is_file():
        pilot = PilotGrid.load(grid)
        own["times"] = " ".join(f"{t:.6g}" for t in pilot.ts.tolist())
        if guided:
            with explained(f"{grid} holds no interval 'guided'", "run janusflow pilot again"):
                own["guided_until"] = float(pilot.settings.get("guided", (0, 0.6))[1])
    changes = {"run.save_every": save_every, "run.log_every": 1, "objective.name": name}
    changes |= {f"objective.{key}": value for key, value in own.items()}
    return changed(Settings(training=stage, alignment=None), changes)


def first_model(recipe: Recipe, base: Path, workers: int = 0) -> None:
    """Writes a recipe's initial model into `base`, keeping files that exist.

    It has the published layout, random weights and a trained vision encoder.
    """
    if (base / "model.safetensors").exists():
        return
    if recipe.collection:
        raise ValueError(
            f"{str(base)!r} lacks model.safetensors, with which the run began; restore it or start "
            "a new run"
        )
    build_tokenizer(
        base, [*vocabulary(), "User", "Assistant"], system_prompt="", spellings=SPELLINGS
    )
    size = tokenizer_in(base).get_vocab_size()
    fit_autoencoder(recipe).save_pretrained(base / "vae")
    seen = base / "vision.safetensors"
    if not seen.exists():
        where, kept = str(pick_device()), base / "vision-kept.safetensors"
        vision_pretraining.save(vision_pretraining.pretrain(recipe, kept, where, workers)[0], seen)
        kept.unlink(missing_ok=True)
    torch.manual_seed(recipe.seed)
    model = JanusFlowModel(recipe.config(size))
    model.vision_und_enc_model.load_state_dict(load_file(seen))
    write(model, base)


def write(model: JanusFlowModel, base: Path) -> None:
    """Writes an initial model, whose weights appear last and complete."""
    part = base / "part"
    model.save_pretrained(part)
    for path in sorted(part.iterdir()):  # config.json, then the weights
        os.replace(path, base / path.name)
    part.rmdir()
    readable(base)


def fit_autoencoder(recipe: Recipe) -> PatchAutoencoder:
    """Fits an autoencoder to the first training scenes by principal components."""
    autoencoder = PatchAutoencoder(recipe.latent_channels, whitening=recipe.whitening)
    scenes = [scene("train", i).objects for i in range(1024)]
    autoencoder.fit(pixels(render_batch(scenes)))
    return autoencoder.requires_grad_(False)


def autoencoder_of(folder: Path, name: str | Path | None = None) -> torch.nn.Module:
    """Returns the autoencoder of the model in `folder`, or another by name.

    Raises ValueError, before any work, for one whose latents do not fit the model.
    """
    vae = load_vae(folder, name)
    check_vae(vae, JanusFlowConfig.from_pretrained(folder))
    return vae


def batches(base: Path, recipe: Recipe | None = None, seed: int | None = None) -> Batches:
    """Returns batches of scenes for a model, with the recipe's shares and, by default, seed."""
    recipe = recipe or Recipe()
    seed = recipe.seed if seed is None else seed
    autoencoder = autoencoder_of(base).requires_grad_(False)
    tokenizer = tokenizer_in(base)
    return Batches(tokenizer, autoencoder, recipe.categories, recipe.templates, seed)


def with_changes(recipe: Recipe, changes: dict) -> tuple[Recipe, dict]:
    """Returns the recipe with those changes that are its own fields, and the remaining changes.

    Raises ValueError for a value of another type, and for a name without a section that is not a
    field.
    """
    changes = {today(k): v for k, v in changes.items()}
    plain = {k: v for k, v in changes.items() if k != "alignment" or isinstance(v, int | float)}
    hints = hints_of(Recipe)
    own = {k: as_hint(hints[k], v, k) for k, v in plain.items() if k in hints}
    rest = {k: v for k, v in changes.items() if k not in own}
    sections = [field.name for field in fields(Settings)]
    unknown = [k for k in rest if "." not in k and k not in sections]
    if unknown:
        known = ", ".join(Recipe.__dataclass_fields__)
        raise ValueError(f"no setting named {unknown[0]!r}; the recipe has {known}")
    return replace(recipe, **own), rest
