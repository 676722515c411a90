"""Training on the world of scenes: the vision encoder first, then flow, alignment and answers.

    python -m janusflow.train --recipe scenes-pico --out runs/pico

The samples of a step are a function of (seed, step), so that a run goes on where its last
complete checkpoint stands and gives the same weights, bit for bit, as one that never stopped.
"""

from __future__ import annotations

import copy
import json
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from janusflow import checkpoints, losses, vision_training
from janusflow.autoencoder import PatchAutoencoder
from janusflow.modeling_janusflow import JanusFlowModel, Prompt
from janusflow.optimizers import OPTIMIZERS
from janusflow.questions import vocabulary
from janusflow.recipes import RECIPES, Recipe
from janusflow.scene_batches import Batches
from janusflow.scene_patches import pixels
from janusflow.scenes import scene
from janusflow.shapes import render_batch
from janusflow.tokenizer import build_tokenizer


@dataclass
class State:
    """All that training changes, which is exactly what a checkpoint holds."""

    model: JanusFlowModel
    ema: JanusFlowModel
    projector: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0


def projector(recipe: Recipe) -> nn.Module:
    """Three linear layers with SiLU between: the tapped block's tokens -> the teacher's width."""
    wide = 2 * recipe.hidden
    return nn.Sequential(
        nn.Linear(recipe.hidden, wide),
        nn.SiLU(),
        nn.Linear(wide, wide),
        nn.SiLU(),
        nn.Linear(wide, recipe.vision_width),
    )


def trainable(model: JanusFlowModel) -> list[tuple[str, nn.Parameter]]:
    """Stage 2 of the paper: everything but the vision encoder."""
    model.requires_grad_(True)
    model.vision_und_enc_model.requires_grad_(False)
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def new_state(recipe: Recipe, model: JanusFlowModel) -> State:
    torch.manual_seed(recipe.seed)  # whatever was drawn before, the vision encoder's training say
    head = projector(recipe)
    named = [*trainable(model), *head.named_parameters(prefix="projector")]
    make = OPTIMIZERS[recipe.optimizer]
    optimizer = make(named, recipe.lr, recipe.betas, recipe.weight_decay)
    ema = copy.deepcopy(model).requires_grad_(False).eval()
    return State(model=model, ema=ema, projector=head, optimizer=optimizer)


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, constant, then linearly to zero over the last part."""
    tail = recipe.steps * (1 - recipe.decay_from)
    falling = (recipe.steps - step) / tail if tail else 1.0
    return recipe.lr * min(1.0, (step + 1) / max(1, recipe.warmup), falling)


def without_text(prompt: Prompt, dropped: Tensor) -> Prompt:
    """Hides all but BOS in the dropped rows (B,); positions stay, as in the unconditional row."""
    seen = prompt.seen
    first = nn.functional.one_hot(seen.long().argmax(dim=1), seen.shape[1]).bool()
    return replace(prompt, mask=torch.where(dropped[:, None], first, seen))


def generation_losses(recipe: Recipe, state: State, batch: dict, rng: torch.Generator) -> dict:
    """Flow (B,) and alignment (B,) of a batch of pictures with captions."""
    model, data = state.model, batch["latents"]
    noise = torch.randn(data.shape, generator=rng)
    shape = dict(mean=recipe.density_mean, std=recipe.density_std)
    t = losses.sample_times(len(data), "logit_normal", rng, **shape)
    prompt = model.encode_prompt(batch["input_ids"], batch["attention_mask"])
    dropped = torch.rand(len(data), generator=rng) < recipe.prompt_drop
    prompt = without_text(prompt, dropped)
    x = losses.interpolate(noise, data, t)
    if not recipe.alignment:
        return {"flow": losses.flow(model.velocity(x, t, prompt), noise, data)}
    velocity, hidden = model.velocity(x, t, prompt, return_hidden=recipe.tap)
    with torch.no_grad():
        teacher = model.vision_und_enc_model(batch["pixel_values"])
    return {
        "flow": losses.flow(velocity, noise, data),
        "alignment": losses.alignment(state.projector(hidden), teacher),
    }


def answer_losses(state: State, batch: dict) -> dict:
    """Next token of the answers (B,)."""
    labels = batch.pop("labels")
    logits = state.model(**batch).logits
    return {"answer": losses.next_token(logits, labels)}


def train_step(recipe: Recipe, state: State, batches: Batches) -> dict[str, float]:
    """One update in place; returns the mean of each loss, unweighted, and the gradient's norm."""
    rng = torch.Generator().manual_seed(recipe.seed * 1_000_003 + state.step)
    parts = generation_losses(recipe, state, batches.pictures(state.step, recipe.pictures), rng)
    if recipe.questions:
        parts |= answer_losses(state, batches.questions(state.step, recipe.questions))
    weights = {"flow": 1.0, "alignment": recipe.alignment, "answer": recipe.answer}
    means = {name: part.mean() for name, part in parts.items()}
    total = sum(weights[name] * mean for name, mean in means.items())
    if not torch.isfinite(total):
        named = ", ".join(f"{name} {mean.item():.3g}" for name, mean in means.items())
        raise FloatingPointError(f"the loss is not finite at step {state.step}: {named}")
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(recipe, state.step)
    state.optimizer.zero_grad(set_to_none=True)
    total.backward()
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, recipe.clip)
    state.optimizer.step()
    state.step += 1
    update_ema(state, min(recipe.ema, state.step / (state.step + 9)))
    return {name: mean.item() for name, mean in means.items()} | {"grad_norm": norm.item()}


@torch.no_grad()
def update_ema(state: State, decay: float) -> None:
    """Exponential moving average, warmed up as (step) / (step + 9)."""
    pairs = zip(state.ema.parameters(), state.model.parameters(), strict=True)
    averages, values = zip(*((a, p) for a, p in pairs if p.requires_grad), strict=True)
    torch._foreach_lerp_(averages, values, 1 - decay)


def build(recipe: Recipe, base: Path) -> tuple[JanusFlowModel, Batches]:
    """A fresh model with its tokenizer, autoencoder and trained vision encoder.

    What is already in `base` is taken from there; the rest is made and written into it.
    """
    build_tokenizer(base, [*vocabulary(), "User", "Assistant"], system_prompt="")
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    config = recipe.config(tokenizer.get_vocab_size())
    autoencoder = fit_autoencoder(recipe)
    autoencoder.save_pretrained(base / "vae")
    torch.manual_seed(recipe.seed)
    model = JanusFlowModel(config)
    seen = base / "vision.safetensors"
    if not seen.exists():
        vision_training.save(vision_training.pretrain(recipe)[0], seen)
    model.vision_und_enc_model.load_state_dict(load_file(seen))
    return model, Batches(tokenizer, autoencoder, recipe.categories, recipe.templates)


def fit_autoencoder(recipe: Recipe, count: int = 1024) -> PatchAutoencoder:
    """Principal components of the first training scenes."""
    autoencoder = PatchAutoencoder(recipe.latent_channels, whitening=recipe.whitening)
    scenes = [scene("train", i).objects for i in range(count)]
    autoencoder.fit(pixels(render_batch(scenes)))
    return autoencoder.requires_grad_(False)


def run(
    recipe: Recipe,
    out: Path,
    start: Path | None = None,
    log_every: int = 100,
    save_every: int = 500,
) -> State:
    """Trains to the end, or goes on from the last complete checkpoint in `out`.

    A new run begins with the weights, not the optimizer, of the run in `start` if one is given.
    """
    out.mkdir(parents=True, exist_ok=True)
    model, batches = build(recipe, out / "base")
    state = new_state(recipe, model)
    if not checkpoints.restore(out, state, recipe.as_dict()) and start:
        checkpoints.start_from(start, state)
    started, first, sums = time.time(), state.step, {}
    while state.step < recipe.steps:
        for name, value in train_step(recipe, state, batches).items():
            sums[name] = sums.get(name, 0.0) + value
        if state.step % log_every == 0:
            line = {name: round(value / log_every, 4) for name, value in sums.items()}
            rate = (state.step - first) * recipe.pictures / (time.time() - started)
            line |= {"step": state.step, "pictures_per_s": round(rate, 1)}
            with open(out / "log.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            sums = {}
        if state.step % save_every == 0 or state.step == recipe.steps:
            checkpoints.save(out, state, recipe.as_dict())
    return state


def export(run: Path, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """Writes the averaged weights of a run's newest checkpoint in the published layout."""
    recipe = Recipe(**checkpoints.recipe(run))
    model, batches = build(recipe, run / "base")
    state = new_state(recipe, model)
    checkpoints.restore(run, state, recipe.as_dict())
    folder.mkdir(parents=True, exist_ok=True)
    for file in (run / "base").glob("*.json"):
        shutil.copy(file, folder)
    state.ema.to(dtype).save_pretrained(folder)
    batches.autoencoder.save_pretrained(folder / "vae")


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--recipe", choices=RECIPES, default="scenes-pico")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--start", type=Path, help="run whose weights to begin with")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="overrides")
    parser.add_argument("--threads", type=int, help="of torch; all cores unless told")
    parser.add_argument("--export", type=Path, help="write the model here instead of training")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.export:
        return export(args.out, args.export)
    changes = {k: json.loads(v) for k, v in (item.split("=", 1) for item in args.set)}
    recipe = replace(RECIPES[args.recipe], **changes)
    run(recipe, args.out, args.start)


if __name__ == "__main__":
    main()
