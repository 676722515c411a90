"""Trains a small Janus-Pro on images of coloured shapes: the next token of an image.

    python -m studies.janus_pro_scenes.train --recipe scenes-pro-pico --out runs/pro
    python -m studies.janus_pro_scenes.train --out runs/pro --export my-pro

As with `janusflow.train`, a step's samples depend on (seed, step) alone: a run goes on where its
last complete checkpoint stands and ends in the same bits as one that never stopped.
"""

from __future__ import annotations

import copy
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, JanusForConditionalGeneration

import janusflow
from janusflow.models.janus_pro import vq
from janusflow.models.janus_pro.loading import generation
from janusflow.models.janus_pro.processing import JanusProProcessor
from janusflow.models.janus_pro.token_sampling import unconditional
from janusflow.models.janusflow.tokenizer import build_tokenizer
from janusflow.models.processor_files import ProcessorFiles
from janusflow.pipelines.pipeline_janus_pro import JanusProPipeline
from janusflow.scenes.patches import pixels
from janusflow.scenes.questions import SPELLINGS, vocabulary
from janusflow.scenes.shapes import render_batch
from janusflow.scenes.world import SPLITS, Scene, generator, scene
from janusflow.training import checkpoints
from janusflow.training.optimizers import OPTIMIZERS
from janusflow.training.schedules import learning_rate
from janusflow.utils.devices import use_threads
from janusflow.utils.hub import locate
from samplers import command_line
from studies.average_weights import move_module
from studies.janus_pro_scenes import codebook
from studies.janus_pro_scenes.recipes import RECIPES, SIDE, ProRecipe

FROZEN = ("model.vqmodel.", "model.vision_model.", "model.aligner.", "lm_head.")


@dataclass
class State:
    """All that training changes, which is exactly what a checkpoint holds."""

    model: nn.Module
    ema: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0


def training_scene(recipe: ProRecipe, index: int) -> Scene:
    """Returns the scene of this index, of a category drawn by the recipe's shares."""
    names, shares = SPLITS["train"], torch.tensor(recipe.categories).double()
    place = torch.searchsorted(
        shares.cumsum(0), generator("train", index, "kind").random() * shares.sum()
    )
    return scene("train", index, names[int(place)])


def batch(recipe: ProRecipe, model, processor: JanusProProcessor, step: int) -> dict[str, Tensor]:
    """Tokens (B, n) of a step's images, and their captions' ids and mask (B, L), ending together.

    Some captions are replaced by the unconditional row.
    """
    first = recipe.first + step * recipe.images
    scenes = [training_scene(recipe, first + i) for i in range(recipe.images)]
    images = pixels(render_batch([s.objects for s in scenes]))
    with torch.no_grad():
        tokens = vq.tokens(model.model.vqmodel, vq.fold(images, recipe.patch))
    rows = processor.prompt_ids([s.caption for s in scenes])
    rng = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    dropped = torch.rand(len(rows), generator=rng) < recipe.prompt_drop
    pairs = zip(rows, dropped.tolist(), strict=True)
    rows = [unconditional(row, processor.pad_id) if gone else row for row, gone in pairs]
    return {"tokens": tokens, **processor._pad([list(row) for row in rows])}


def losses(model, tokens: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Returns (B,), the mean -log p of an image's tokens given its prompt and earlier tokens."""
    n = tokens.shape[1]
    text = model.get_input_embeddings()(input_ids)
    drawn = model.prepare_embeddings_for_image_generation(tokens[:, :-1])
    seen = torch.cat([attention_mask, attention_mask.new_ones(len(tokens), n - 1)], dim=1)
    hidden = model.model.language_model(
        inputs_embeds=torch.cat([text, drawn], dim=1),
        attention_mask=seen,
        position_ids=(seen.cumsum(dim=1) - 1).clamp(min=0),
        use_cache=False,
    ).last_hidden_state
    logits = model.model.generation_head(hidden[:, -n:])
    each = nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none")
    return each.view_as(tokens).mean(dim=1)


def train_step(recipe: ProRecipe, state: State, processor: JanusProProcessor) -> dict[str, float]:
    """Performs one update in place, and returns the loss and the gradient's norm."""
    loss = losses(state.model, **batch(recipe, state.model, processor, state.step)).mean()
    if not torch.isfinite(loss):
        raise FloatingPointError(f"the loss is not finite at step {state.step}")
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(recipe, state.step, "linear")
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, recipe.clip)
    if not torch.isfinite(norm):  # before the weights move
        raise FloatingPointError(f"the gradient is not finite at step {state.step}")
    state.optimizer.step()
    state.step += 1
    move_module(state.ema, state.model, recipe.ema, state.step)
    return {"next": loss.item(), "grad_norm": norm.item()}


def build(recipe: ProRecipe, base: Path) -> tuple[nn.Module, JanusProProcessor]:
    """Returns a fresh model with its codebook, and its processor, whose files are in `base`."""
    build_tokenizer(
        base,
        [*vocabulary(), "User", "Assistant"],
        image_size=SIDE,
        num_image_tokens=recipe.tokens,
        system_prompt="",
        spellings=SPELLINGS,
    )
    processor = JanusProProcessor(ProcessorFiles.read(base))
    torch.manual_seed(recipe.seed)
    config = recipe.config(len(processor.tokenizer), processor.image_id)
    model = JanusForConditionalGeneration(config).train()
    images = pixels(render_batch([scene("train", i).objects for i in range(1024)]))
    codebook.fit(model.model.vqmodel, vq.fold(images, recipe.patch), recipe.seed)
    with torch.no_grad():
        model.model.generation_embeddings.weight.copy_(
            model.model.vqmodel.quantize.embedding.weight
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(FROZEN))
    return model, processor


def new_state(recipe: ProRecipe, model: nn.Module) -> State:
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    make = OPTIMIZERS[recipe.optimizer]
    optimizer = make(named, recipe.lr, recipe.betas, recipe.weight_decay)
    ema = copy.deepcopy(model).requires_grad_(False).eval()
    return State(model=model, ema=ema, optimizer=optimizer)


@torch.no_grad()
def start_from(state: State, name: str) -> None:
    """Takes all weights of a Janus-Pro, or the language model, without its head, of a JanusFlow.

    ValueError if the sizes or the vocabularies differ.
    """
    given = janusflow.load(locate(name)).model.float()
    whole = isinstance(given, JanusForConditionalGeneration)
    found = (given if whole else given.language_model.model).state_dict()
    for model in (state.model, state.ema):
        own = model if whole else model.model.language_model
        if {k: v.shape for k, v in own.state_dict().items()} != {
            k: v.shape for k, v in found.items()
        }:
            raise ValueError(f"{name!r} has other sizes than the recipe's; give one of its sizes")
        own.load_state_dict(found)


def save(out: Path, state: State, recipe: ProRecipe, keep: int = 2) -> None:
    """Writes a checkpoint of this step and removes all but the newest few."""
    found = {f"model.{k}": v for k, v in state.model.state_dict().items()}
    found |= {f"ema.{k}": v for k, v in state.ema.state_dict().items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        found |= {f"optimizer.{index}.{key}": value for key, value in moments.items()}
    meta = {"step": str(state.step), "recipe": json.dumps(asdict(recipe))}
    checkpoints.write(checkpoints.path_of(out, state.step), found, meta)
    checkpoints.clean(out, keep)


def recipe_of(meta: dict[str, str]) -> ProRecipe:
    """Returns the recipe of a checkpoint; settings that are newer than it have their defaults."""
    return ProRecipe(**tuples(json.loads(meta["recipe"])))


def tuples(settings: dict) -> dict:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}


def restore(out: Path, state: State, recipe: ProRecipe) -> bool:
    """Goes on from the newest whole checkpoint; False if there is none, ValueError if the run had
    another recipe. Only its number of steps may change.
    """
    for step, found, meta in checkpoints.newest(out):
        if replace(recipe_of(meta), steps=recipe.steps) != recipe:
            raise ValueError(f"{out} holds a run of another recipe; choose another folder")
        for part, module in (("model.", state.model), ("ema.", state.ema)):
            own = {k.removeprefix(part): v for k, v in found.items() if k.startswith(part)}
            module.load_state_dict(own)
        moments: dict[int, dict[str, Tensor]] = {}
        for name in (name for name in found if name.startswith("optimizer.")):
            _, index, key = name.split(".", 2)
            moments.setdefault(int(index), {})[key] = found[name]
        state.optimizer.load_state_dict({**state.optimizer.state_dict(), "state": moments})
        state.step = step
        return True
    return False


def run(
    recipe: ProRecipe, out: Path, start: str | None = None, log_every: int = 20, save_every=100
) -> State:
    """Trains to the end, or goes on from the last complete checkpoint in `out`.

    A new run begins with the weights of `start` if it is named, see `start_from`.
    """
    out.mkdir(parents=True, exist_ok=True)
    model, processor = build(recipe, out / "base")
    state = new_state(recipe, model)
    if not restore(out, state, recipe) and start:
        start_from(state, start)
    started, first, sums = time.time(), state.step, {}
    while state.step < recipe.steps:
        for name, value in train_step(recipe, state, processor).items():
            sums[name] = sums.get(name, 0.0) + value
        if state.step % log_every == 0:
            line = {name: round(value / log_every, 4) for name, value in sums.items()}
            rate = (state.step - first) * recipe.images / (time.time() - started)
            with open(out / "log.jsonl", "a", encoding="utf-8") as file:
                print(json.dumps(line | {"step": state.step, "rate": round(rate, 2)}), file=file)
            sums = {}
        if state.step % save_every == 0 or state.step == recipe.steps:
            save(out, state, recipe)
    return state


def export(run: Path, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """Writes the averaged weights of a run's newest checkpoint in transformers' layout.

    The VQ model stays in float32: rounded, its table gives other tokens than those that were
    learnt. `generation_config.json` tells the recipe's guidance.
    """
    recipe = recipe_of(checkpoints.latest(run)[2])
    model, processor = build(recipe, run / "base")
    state = new_state(recipe, model)
    restore(run, state, recipe)
    codes = copy.deepcopy(state.ema.model.vqmodel)
    shipped = state.ema.to(dtype)
    shipped.model.vqmodel = codes
    told = GenerationConfig(guidance_scale=recipe.guidance)
    shipped.generation_config = generation(processor, told)
    JanusProPipeline(shipped, processor).save_pretrained(folder)


def main() -> None:

    parser = command_line.parser(__doc__)
    parser.add_argument(
        "--recipe", choices=RECIPES, default="scenes-pro-pico", help="Names the recipe."
    )
    parser.add_argument("--out", type=Path, required=True, help="Stores the run in this folder.")
    parser.add_argument(
        "--start", help="Starts from this Janus-Pro or from this JanusFlow's language model."
    )
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="Changes these settings of the recipe.",
    )
    parser.add_argument(
        "--threads", type=int, help="Runs torch on this many threads; by default all."
    )
    parser.add_argument("--export", type=Path, help="Writes the model here instead of training.")
    args = parser.parse_args()
    use_threads(args.threads)
    if args.export:
        return export(args.out, args.export)
    changes = tuples({k: json.loads(v) for k, v in (item.split("=", 1) for item in args.set)})
    run(replace(RECIPES[args.recipe], **changes), args.out, args.start)


if __name__ == "__main__":
    main()
