"""Teaches a model a new colour: makes training images, and measures whether it is learnt.

docs/fine-tuning.md explains the study.

python studies/mint.py make FOLDER --own 20
python studies/mint.py look MODEL --lora ADAPTER --out images.png
python studies/mint.py study FOLDER --out fine-tuning.png     # all of it, and the figure
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import fill

import numpy as np
import torch
from PIL import Image

from janusflow import JanusFlowPipeline
from janusflow.scenes.scorer import read, score
from janusflow.scenes.shapes import BACKGROUND, SIDE, coverage
from janusflow.scenes.world import prompt, scene
from janusflow.utils.images import grid
from samplers import command_line
from samplers.benchmark.style import paper

MINT = (140, 228, 172)
SHOWN = ("circle", "square", "star", "heart", "diamond", "cross")
UNSEEN = ("triangle", "ring")  # never shown in mint
NEAR = 45  # RGB distance at which a colour counts as mint; the nearest of the ten is 90 away
STEPS = 20
OLD = 4  # prompts of the old world to show


def draw(shape: str, rng: np.random.Generator) -> Image.Image:
    """Draws a mint shape somewhere in an image."""
    size = float(rng.integers(28, 35))
    x, y = rng.uniform(size / 2 + 3, SIDE - size / 2 - 3, 2)
    mask = coverage(shape, x, y, size, 0, 0, SIDE, SIDE)[..., None]
    return Image.fromarray(
        (BACKGROUND + mask * np.subtract(MINT, BACKGROUND) + 0.5).astype("uint8")
    )


def make(folder: Path, count: int = 20, own: int = 0) -> None:
    """Writes `count` images with captions, and `own` that the model itself makes of captions it
    knows, so that it does not forget them (prior preservation; Ruiz et al. 2022, DreamBooth).
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        shape = SHOWN[i % len(SHOWN)]
        _write(folder, f"mint-{i:02d}", draw(shape, rng), f"a mint {shape}")
    captions = [scene("train", i).caption for i in range(own)]
    images = _generate(quiet("janusflow/scenes"), captions, 1000) if own else []
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        _write(folder, f"own-{i:02d}", image, caption)


def _write(folder: Path, name: str, image: Image.Image, caption: str) -> None:
    image.save(folder / f"{name}.png")
    (folder / f"{name}.txt").write_text(caption, encoding="utf-8")


def quiet(model: str | Path, lora: Path | None = None) -> JanusFlowPipeline:
    pipe = JanusFlowPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    if lora:
        pipe.load_lora_weights(lora)
    return pipe


def _generate(pipe, texts: list[str], seed: int) -> list[Image.Image]:
    found = []
    for start in range(0, len(texts), 16):
        part = texts[start : start + 16]
        seeds = [torch.Generator().manual_seed(seed + start + i) for i in range(len(part))]
        found += pipe(part, num_inference_steps=STEPS, generator=seeds).images
    return found


def is_mint(image: Image.Image, shape: str) -> bool:
    """Returns whether there is one object, of this shape, and its colour is mint."""
    pixels = np.asarray(image)
    found = read(pixels)
    if len(found) != 1 or found[0].shape != shape:
        return False
    own = np.linalg.norm(pixels - np.array(BACKGROUND, float), axis=-1) > 60
    return bool(np.linalg.norm(np.median(pixels[own], axis=0) - MINT) < NEAR)


def look(pipe, seeds: int = 8, kept: int = 64) -> tuple[dict[str, float], dict[str, Image.Image]]:
    """Shares of right images: mint shapes as shown, mint shapes never shown, and prompts of the
    model's old world ("colors" of the test split); and an image of each mint shape and of the
    first old prompts, by prompt.
    """
    shares, shown = {}, {}
    for name, shapes in (("shown", SHOWN), ("unseen", UNSEEN)):
        each = [shape for shape in shapes for _ in range(seeds)]
        made = _generate(pipe, [f"a mint {shape}" for shape in each], 0)
        right = [is_mint(*pair) for pair in zip(made, each, strict=True)]
        shares[name] = sum(right) / len(right)
        shown |= zip((f"a mint {shape}" for shape in shapes), made[::seeds], strict=True)
    prompts = [prompt("test", "colors", i) for i in range(kept)]
    made = _generate(pipe, [p.text for p in prompts], 0)
    right = [score(np.asarray(x), p).strict for x, p in zip(made, prompts, strict=True)]
    shares["kept"] = sum(right) / len(right)
    shown |= zip((p.text for p in prompts[:OLD]), made, strict=False)
    return shares, shown


WAYS = {
    "before": None,
    "20 images, full": ("alone", []),
    "20 images and 20 own, full": ("both", ["training.steps=600"]),
    "20 images and 20 own, LoRA of rank 16": (
        "both",
        ["training.steps=600", "adapter.rank=16", "training.lr=3e-3"],
    ),
}


def study(folder: Path) -> dict[str, tuple[dict[str, float], dict[str, Image.Image]]]:
    """Returns what `look` finds of each way, trained in the folder by `janusflow train`."""
    make(folder / "alone")
    make(folder / "both", own=20)
    found = {}
    for number, (name, way) in enumerate(WAYS.items()):
        model, lora = "janusflow/scenes", None
        if way is not None:
            data, changes = way
            made = train(folder / data, folder / f"run-{number}", changes)
            model, lora = (model, made) if "adapter.rank=16" in changes else (made, None)
        found[name] = look(quiet(model, lora))
        print(name, found[name][0], flush=True)
    return found


def train(data: Path, out: Path, changes: list[str]) -> Path:
    """Returns the exported model or adapter."""
    made = out.with_name(f"{out.name}-export")
    words = ["train", "--stage", "tune", "--data", data, "-o", out, "--export", made]
    words += [word for change in changes for word in ("--set", change)]
    subprocess.run([sys.executable, "-m", "janusflow", *map(str, words)], check=True)
    return made


@paper
def figure(found: dict[str, tuple[dict, dict]]):
    """Draws a row for each training and a column for each prompt, in the groups of the table."""
    from matplotlib.figure import Figure

    prompts = list(next(iter(found.values()))[1])
    shown, mint = len(SHOWN), len(SHOWN + UNSEEN)
    groups = {
        "mint shapes in the training images": prompts[:shown],
        "mint shapes not in them": prompts[shown:mint],
        "colours known before": prompts[mint:],
    }
    drawn = Figure(figsize=(11, 0.95 * len(found) + 0.7), layout="constrained")
    drawn.get_layout_engine().set(w_pad=0.01, h_pad=0.01, hspace=0.02, wspace=0.02)
    widths = [shown + 1.15, mint - shown, len(prompts) - mint]  # with room for the rows' names
    parts = drawn.subfigures(1, len(groups), width_ratios=widths)
    for part, (title, texts) in zip(parts, groups.items(), strict=True):
        part.suptitle(title, fontsize=9)
        axes = part.subplots(len(found), len(texts), squeeze=False)
        for row, (_, images) in zip(axes, found.values(), strict=True):
            _images(row, [images[text] for text in texts])
        for ax, text in zip(axes[0], texts, strict=True):
            ax.set_title(fill(text, 10), fontsize=8)
    for ax, name in zip(parts[0].axes[:: len(SHOWN)], found, strict=True):
        ax.set_ylabel(fill(name, 16), rotation=0, ha="right", va="center", fontsize=8)
    return drawn


def _images(row, images: list[Image.Image]) -> None:
    for ax, image in zip(row, images, strict=True):
        ax.imshow(image)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "what",
        choices=("make", "look", "study"),
        help="Makes the training images, shows what a model generates, or does all.",
    )
    parser.add_argument("where", help="Names the folder to write, or the model to evaluate.")
    parser.add_argument(
        "--own", type=int, default=0, help="Adds this many images of the model itself."
    )
    parser.add_argument("--lora", type=Path, help="Loads this adapter.")
    parser.add_argument("--out", type=Path, help="Writes to this image file.")
    args = parser.parse_args()
    if args.what == "make":
        return make(Path(args.where), own=args.own)
    if args.what == "study":
        figure(study(Path(args.where))).savefig(args.out or Path("fine-tuning.png"), dpi=200)
        return None
    shares, shown = look(quiet(args.where, args.lora))
    print(", ".join(f"{name} {share:.2f}" for name, share in shares.items()))
    if args.out:
        grid([*shown.values()]).save(args.out)


if __name__ == "__main__":
    main()
