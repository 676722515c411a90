"""The small vision encoder, trained to say what lies under each patch of a scene.

python -m janusflow.vision_training --recipe scenes-pico --out runs/pico/vision.safetensors
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm

from janusflow import scene_patches
from janusflow.recipes import RECIPES, Recipe
from janusflow.vision import VisionEncoder


def pretrain(recipe: Recipe) -> VisionEncoder:
    """A fresh encoder after `vision_steps` batches, with a linear head that is thrown away."""
    torch.manual_seed(recipe.seed)
    encoder = VisionEncoder(recipe.config(vocab_size=1).vision)
    head = nn.Linear(recipe.vision_width, scene_patches.OUTPUTS)
    parameters = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.vision_lr, betas=recipe.betas)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.vision_lr, total_steps=recipe.vision_steps, pct_start=0.1
    )
    bar = tqdm(range(recipe.vision_steps), desc="vision encoder", mininterval=5)
    for step in bar:
        pixels, targets = scene_patches.batch(step, recipe.vision_batch)
        loss, right = scene_patches.loss(head(encoder(pixels)), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, recipe.clip)
        optimizer.step()
        schedule.step()
        bar.set_postfix_str(f"loss {loss.item():.3f}, patches right {right:.3f}", refresh=False)
    return encoder


def save(encoder: VisionEncoder, path: Path) -> None:
    """Writes the encoder's weights, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file({k: v.contiguous() for k, v in encoder.state_dict().items()}, part)
    os.replace(part, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--recipe", choices=RECIPES, default="scenes-pico")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    started = time.time()
    encoder = pretrain(RECIPES[args.recipe])
    save(encoder, args.out)
    print(f"{args.out} after {time.time() - started:.0f} s")


if __name__ == "__main__":
    main()
