"""Measures what a model of emoji has learnt: retrieval, nearest training images, new pairs.

    janusflow data emoji -o emoji --size 64 --keywords
    janusflow data efficientnet -o lite0
    python -m studies.real_images.emoji --model MODEL --data emoji --features lite0 --out FILE

Prompts are drawn by the seed, none is chosen. For retrieval EfficientNet's features are centred on
the training images and of length one; an image is compared with the mean of each concept's images.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import janusflow
from janusflow.data.collections.batches import ImageEntry, as_input, read_items, read_pixels
from janusflow.data.collections.emoji import TONES
from janusflow.evaluation import features
from janusflow.evaluation.intervals import wilson
from janusflow.utils import digests
from janusflow.utils.images import captioned, grid
from samplers import command_line

COLORS = {
    "red": (220, 50, 45),
    "orange": (245, 140, 35),
    "yellow": (250, 205, 50),
    "green": (90, 160, 60),
    "blue": (50, 130, 205),
    "purple": (145, 80, 190),
}
OBJECTS = ("car", "dress", "apple", "balloon", "butterfly", "hat", "umbrella", "fish")
SUBSETS = 200  # of the KID


@dataclass(frozen=True)
class Pictures:
    """Images of a split with their features, (N, D), as they are and placed by the judge."""

    items: Sequence[ImageEntry]
    pixels: Tensor  # (N, 3, S, S) uint8
    raw: Tensor
    vectors: Tensor


@dataclass(frozen=True)
class Judge:
    """EfficientNet: images (N, 3, S, S) uint8 -> features (N, D), centred and of length one."""

    network: nn.Module
    center: Tensor | float = 0.0

    @torch.inference_mode()
    def raw(self, pixels: Tensor) -> Tensor:
        side = self.network.side
        parts = [
            self.network(nn.functional.interpolate(part.float(), side, mode="bicubic"))
            for part in pixels.split(64)
        ]
        return torch.cat(parts)

    def __call__(self, pixels: Tensor) -> Tensor:
        return self.placed(self.raw(pixels))

    def placed(self, raw: Tensor) -> Tensor:
        return nn.functional.normalize(raw - self.center, dim=1)


def cached(network: nn.Module, pixels: Tensor) -> Tensor:
    """Returns features of unchanging images, computed once: see `features.cache`."""
    name = f"{digests.of_tensors({'pixels': pixels})[:32]}-{features.fingerprint(network)}"
    return features.kept(
        features.cache() / f"{name}.safetensors", lambda: Judge(network).raw(pixels)
    )


def known_pictures(folder: Path, network: nn.Module) -> tuple[Judge, dict[str, Pictures]]:
    """Returns the splits with features, and the judge centred on the training images."""
    found = {split: read_items(folder, split) for split in ("train", "test")}
    pixels = {split: read_pixels(folder, items) for split, items in found.items()}
    raw = {split: cached(network, shown) for split, shown in pixels.items()}
    judge = Judge(network, raw["train"].mean(0))
    known = {
        split: Pictures(items, pixels[split], raw[split], judge.placed(raw[split]))
        for split, items in found.items()
    }
    return judge, known


def drawn(pipe, prompts: Sequence[str], seed: int, **settings) -> Tensor:
    """Returns an image of each prompt, (N, 3, S, S) uint8, with the seed's noise."""
    found = []
    for first in range(0, len(prompts), 50):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + first)
        part = list(prompts[first : first + 50])
        found += pipe(part, generator=generator, **settings).images
    return torch.from_numpy(np.stack([np.asarray(i) for i in found])).permute(0, 3, 1, 2)


def chosen(items: Sequence[ImageEntry], count: int, seed: int) -> list[ImageEntry]:
    """Returns one plain image of each of `count` concepts, drawn by the seed."""
    plain: dict[str, ImageEntry] = {}
    for item in items:
        if not item.toned:
            plain.setdefault(item.concept, item)
    order = np.random.default_rng(seed).permutation(len(plain))
    return [list(plain.values())[i] for i in order[:count]]


def centroids(shown: Pictures, concepts: Sequence[str]) -> Tensor:
    """Returns the mean of each concept's images, of length one, (C, D)."""
    own = [[i for i, x in enumerate(shown.items) if x.concept == c] for c in concepts]
    means = torch.stack([shown.vectors[places].mean(0) for places in own])
    return nn.functional.normalize(means, dim=1)


def retrieval(made: Tensor, means: Tensor, seed: int) -> dict:
    """Share of images (C, D) whose own concept's mean (C, D) is the nearest, with its interval, and
    the same of images in another order.
    """
    nearest = (made @ means.T).argmax(1)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(made)))
    found = {"candidates": len(means), "chance": round(1 / len(means), 4)}
    for name, own in (("own", torch.arange(len(made))), ("shuffled", order)):
        found[name] = rated((nearest == own).tolist())
    return found


def rated(right: Sequence[bool]) -> list[float]:
    """Returns a share and its 95 % interval."""
    low, high = wilson(sum(right), len(right))
    return [round(sum(right) / len(right), 3), round(low, 3), round(high, 3)]


def kid(ours: Tensor, theirs: Tensor, seed: int) -> list[float]:
    """1000 times the squared MMD with the kernel (x.y / D + 1)^3, unbiased: the mean over subsets
    of half the smaller set, and the range of 95 % of them. Binkowski et al. 2018.
    """
    rng, size = np.random.default_rng(seed), min(len(ours), len(theirs)) // 2
    found = []
    for _ in range(SUBSETS):
        a, b = (x[torch.from_numpy(rng.permutation(len(x))[:size])] for x in (ours, theirs))
        found.append(1000 * mmd(a.double(), b.double()))
    low, high = np.quantile(found, (0.025, 0.975))
    return [round(float(x), 2) for x in (np.mean(found), low, high)]


def mmd(a: Tensor, b: Tensor) -> float:
    """Returns the MMD of (n, D) and (n, D), without the kernel of a vector with itself."""
    width = a.shape[1]
    own = [(x @ x.T / width + 1) ** 3 for x in (a, b)]
    n, cross = len(a), ((a @ b.T / width + 1) ** 3).mean()
    inside = sum((k.sum() - k.diagonal().sum()) / (n * (n - 1)) for k in own)
    return float(inside - 2 * cross)


def nearest(made: Tensor, vectors: Tensor, shown: Pictures) -> dict[str, tuple[Tensor, Tensor]]:
    """Places in `shown` of each image's nearest, and the distances: by pixels (root mean square of
    values in [0, 1]) and by features (1 - cosine).
    """
    flat, all_ = (as_input(x).flatten(1) / 2 for x in (made, shown.pixels))
    by_pixels = torch.cdist(flat, all_) / flat.shape[1] ** 0.5
    by_features = 1 - vectors @ shown.vectors.T
    found = {"pixels": by_pixels.min(1), "features": by_features.min(1)}
    return {name: (best.indices, best.values) for name, best in found.items()}


def tones(pipe, folder: Path, count: int, seed: int, **settings) -> list[float]:
    """Pairs of gesture and skin tone that training left out: how often the nearest by pixels, of
    the gesture's five, is the one that was asked for. Chance is 0.2.
    """
    splits = [read_items(folder, split) for split in ("compositions", "train")]
    held = [x for x in splits[0] if x.name.endswith(tuple(TONES.values())) and "," not in x.name]
    order = np.random.default_rng(seed).permutation(len(held))[:count]
    asked = [held[i] for i in order]
    made, right = drawn(pipe, [x.name for x in asked], seed, **settings), []
    for item, image in zip(asked, made, strict=True):
        family = [x for part in splits for x in part if x.concept == item.concept and x.toned]
        known = read_pixels(folder, family).float()
        best = (known - image.float()).square().flatten(1).mean(1).argmin()
        right.append(family[int(best)].name == item.name)
    return rated(right)


def colors(pipe, known: set[str], seed: int, **settings) -> list[float]:
    """Pairs of colour and object that no caption names: how often the mean of the coloured pixels
    is nearest, of six, to the colour that was asked for. Chance is 1 / 6.
    """
    pairs = [(c, o) for o in OBJECTS for c in COLORS if f"{c} {o}" not in known]
    made = drawn(pipe, [f"a {c} {o}" for c, o in pairs], seed, **settings)
    return rated([main_color(image) == c for (c, _), image in zip(pairs, made, strict=True)])


def main_color(image: Tensor) -> str:
    """Returns the nearest of `COLORS` to the mean of the coloured pixels of (3, S, S) uint8."""
    pixels = image.flatten(1).float()
    vivid = pixels.amax(0) - pixels.amin(0) > 48
    mean = (pixels[:, vivid] if bool(vivid.any()) else pixels).mean(1)
    own, table = mean - mean.mean(), torch.tensor(list(COLORS.values())).float()
    table = table - table.mean(1, keepdim=True)
    return list(COLORS)[int(nn.functional.cosine_similarity(table, own[None]).argmax())]


def questions(pipe, items: Sequence[ImageEntry], pixels: Tensor) -> list[float]:
    """Returns how often "What is this?" is answered by the name."""
    shown = [Image.fromarray(p.permute(1, 2, 0).numpy()) for p in pixels]
    told = [pipe.chat("What is this?", [image], max_new_tokens=24) for image in shown]
    return rated([a.strip() == x.name.lower() for a, x in zip(told, items, strict=True)])


def sheet(made: Tensor, prompts: Sequence[str], near: dict, shown: Pictures) -> Image.Image:
    """Draws each image with its prompt, then the nearest by pixels and by features."""
    cells = []
    for i, (image, prompt) in enumerate(zip(made, prompts, strict=True)):
        beside = [shown.pixels[near[name][0][i]] for name in ("pixels", "features")]
        row = torch.cat([image, *beside], dim=2)
        big = Image.fromarray(row.permute(1, 2, 0).numpy())
        cells.append(captioned(big.resize((big.width * 2, big.height * 2)), prompt, 2))
    return grid(cells, columns=5)


def measure(args: argparse.Namespace) -> dict:
    pipe = janusflow.load(args.model)
    how = dict(num_inference_steps=args.steps, guidance_scale=args.guidance)
    network = features.network(str(args.features), lambda: pipe, torch.device("cpu"))
    judge, known = known_pictures(args.data, network)
    rows, made = [], {}
    for split, shown in known.items():
        items = chosen(shown.items, args.count, args.seed)
        images = drawn(pipe, [x.name for x in items], args.seed, **how)
        made[split] = raw = judge.raw(images)
        vectors = judge.placed(raw)
        means = centroids(shown, [x.concept for x in items])
        near = nearest(images, vectors, known["train"])
        part = slice(0, args.shown)
        some = {name: (a[part], b[part]) for name, (a, b) in near.items()}
        if args.figures:
            names = [x.name for x in items[part]]
            sheet(images[part], names, some, known["train"]).save(args.figures / f"{split}.png")
        rows.append(
            dict(prompts=split, images=len(images))
            | retrieval(vectors, means, args.seed)
            | {f"nearest by {n}": round(float(d.median()), 3) for n, (_, d) in near.items()}
            | {"answers": questions(pipe, items[:60], shown.pixels[[x.place for x in items[:60]]])}
        )
    both = torch.cat(list(made.values()))
    distances = {f"kid against {k}": kid(both, v.raw, args.seed) for k, v in known.items()}
    distances["kid of train against test"] = kid(known["train"].raw, known["test"].raw, args.seed)
    names = {x.name for x in known["train"].items}
    composed = {
        "skin tone": tones(pipe, args.data, args.count, args.seed, **how),
        "colour": colors(pipe, names, args.seed, **how),
    }
    made_by = f"{args.steps} steps of Euler, guidance {args.guidance:g}, seed {args.seed}"
    told = {"date": time.strftime("%Y-%m-%d"), "note": f"{args.note or args.model}; {made_by}"}
    return told | {"rows": rows, "distances": distances, "compositions": composed}


def table(found: dict) -> list[dict]:
    """Returns a row for each score, with training and held-out concepts side by side."""
    seen, new = found["rows"]
    both = {
        "retrieval by EfficientNet": "own",
        "the same, captions shuffled": "shuffled",
        "answers by the exact name": "answers",
        "median distance to the nearest training image, pixels": "nearest by pixels",
        "median distance to the nearest training image, features": "nearest by features",
    }
    rows = [
        {"score": title, "training concepts": seen[key], "held-out concepts": new[key]}
        for title, key in both.items()
    ]
    kid = found["distances"]
    against = {"training concepts": "kid against train", "held-out concepts": "kid against test"}
    rows.append({"score": "KID x 1000 of all images"} | {k: kid[v] for k, v in against.items()})
    between = {"training concepts": "", "held-out concepts": kid["kid of train against test"]}
    rows.append({"score": "KID x 1000 of the training images"} | between)
    for title, key, chance in (
        ("gesture in a skin tone never shown", "skin tone", "0.2"),
        ("thing in a colour never named", "colour", "0.167"),
    ):
        share = found["compositions"][key]
        rows.append(
            {
                "score": f"{title}, chance {chance}",
                "training concepts": "",
                "held-out concepts": share,
            }
        )
    return rows


def arguments(*words: str) -> argparse.Namespace:
    """Parses these words, or the process's own."""
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "--model", required=True, help="Names the model: a folder or a packaged name."
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="Reads the folder that `janusflow data emoji` wrote.",
    )
    parser.add_argument(
        "--features", type=Path, required=True, help="Reads EfficientNet from this folder."
    )
    parser.add_argument(
        "--count", type=int, default=100, help="Draws this many prompts of each split."
    )
    parser.add_argument(
        "--shown", type=int, default=40, help="Shows this many of them in the figures."
    )
    parser.add_argument("--steps", type=int, default=30, help="Takes this many sampling steps.")
    parser.add_argument("--guidance", type=float, default=2.0, help="Sets the guidance weight.")
    parser.add_argument("--seed", type=int, default=0, help="Seeds the noise.")
    parser.add_argument("--note", default="", help="Adds this note on the model.")
    parser.add_argument("--figures", type=Path, help="Draws the grids into this folder.")
    parser.add_argument("--out", type=Path, help="Writes the scores to this JSON file.")
    args = parser.parse_args(words or None)
    if args.figures:
        args.figures.mkdir(parents=True, exist_ok=True)
    return args


def main() -> None:
    args = arguments()
    found = measure(args)
    text = json.dumps(found, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
