"""Measures how often the exact scorer is wrong: python -m checks.scorer --renders 2000 --seed 1

Fresh renders and their reconstruction by the packaged autoencoder have to be accepted; images with
one fault have to be rejected, drawn and reconstructed. Counts of both errors, with Wilson's bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from safetensors import safe_open

from janusflow.evaluation.intervals import wilson
from janusflow.scenes.scorer import score
from janusflow.scenes.shapes import Obj, render
from janusflow.scenes.world import COLORS, GAP, SHAPES, SIDE, Scene, generator, pick, scene
from janusflow.utils.hub import WEIGHTS
from samplers import command_line

VAE = WEIGHTS / "scenes" / "vae" / "diffusion_pytorch_model.safetensors"
Fault = Callable[[list[Obj], np.random.Generator], list[Obj] | None]


def wrong_colour(objects, rng):
    first, *rest = objects
    return [replace(first, color=pick(rng, sorted(set(COLORS) - {first.color}))), *rest]


def wrong_shape(objects, rng):
    first, *rest = objects
    return [replace(first, shape=pick(rng, sorted(set(SHAPES) - {first.shape}))), *rest]


def one_too_many(objects, rng):
    """Adds an object apart from all others, like one of them in half of the cases."""
    kind = pick(rng, objects)
    if rng.random() < 0.5:
        kind = replace(kind, shape=pick(rng, list(SHAPES)), color=pick(rng, list(COLORS)))
    for _ in range(200):
        x, y = rng.integers(19, SIDE - 18, 2)
        new = replace(kind, x=int(x), y=int(y))
        if all(_apart(new, obj) >= GAP for obj in objects):
            return [*objects, new]
    return None


def one_missing(objects, _rng):
    return objects[1:]


def touching(objects, rng):
    """Adds an object pushed 0 to 14 pixels into the box of the first, beside or above it."""
    first = objects[0]
    deep = (first.size + first.size) / 2 - int(rng.integers(0, 15))
    dx, dy = pick(rng, [(deep, 0), (-deep, 0), (0, deep), (0, -deep)])
    new = replace(first, x=first.x + dx, y=first.y + dy, color=pick(rng, list(COLORS)))
    inside = min(new.x, new.y) > 18 and max(new.x, new.y) < SIDE - 18
    return [*objects, new] if inside else None


def swapped(objects, _rng):
    a, b = objects
    return [replace(a, x=b.x, y=b.y), replace(b, x=a.x, y=a.y)]


def _apart(a: Obj, b: Obj) -> float:
    """Returns the pixels between two boxes along the axis where they are further apart."""
    return max(abs(a.x - b.x), abs(a.y - b.y)) - (a.size + b.size) / 2


FAULTS: dict[str, tuple[str, Fault]] = {  # name: category of the scenes, what is done to them
    "a wrong colour": ("mixed", wrong_colour),
    "a wrong shape": ("mixed", wrong_shape),
    "one too many": ("mixed", one_too_many),
    "one missing": ("mixed", one_missing),
    "touching": ("mixed", touching),
    "swapped positions": ("position", swapped),
}


class Autoencoder:
    """The shipped one, linear on 8 x 8 patches, in numpy."""

    def __init__(self, path: Path = VAE):
        with safe_open(path, "np") as file:
            weights = {name: file.get_tensor(name).astype(np.float64) for name in file.keys()}
        self.encode, self.decode = (weights[f"{side}.weight"] for side in ("encoder", "decoder"))
        self.shift, self.base = (weights[f"{side}.bias"] for side in ("encoder", "decoder"))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        grid = (image / 127.5 - 1).reshape(SIDE // 8, 8, SIDE // 8, 8, 3)
        codes = np.einsum("aibjc,kcij->abk", grid, self.encode, optimize=True) + self.shift
        back = np.einsum("abk,kcij->aibjc", codes, self.decode, optimize=True) + self.base
        pixels = (back.reshape(SIDE, SIDE, 3) + 1) * 127.5
        return pixels.round().clip(0, 255).astype(np.uint8)


def scenes(seed: int, category: str | None) -> Iterator[tuple[Scene, np.random.Generator]]:
    """Yields fresh scenes of the test split without end, which no test and no training uses."""
    number = 0
    while True:
        rng = generator("checks.scorer", seed, category or "", number)
        yield scene("test", int(rng.integers(10**6, 2**31)), category), rng
        number += 1


def faulty(name: str, seed: int) -> Iterator[tuple[Scene, list[Obj]]]:
    category, fault = FAULTS[name]
    for shown, rng in scenes(seed, category):
        if (objects := fault(list(shown.objects), rng)) is not None:
            yield shown, objects


def errors(images, accept: bool) -> int:
    """Returns for how many pairs (scene, image) the strict score judges otherwise."""
    return sum(score(image, shown.prompt).strict != accept for shown, image in images)


def table(renders: int, seed: int) -> list[tuple[str, str, int, int]]:
    """Returns rows of what was shown, which error is counted, and how many of how many."""
    vae, rows = Autoencoder(), []
    right = [(shown, render(shown.objects)) for shown, _ in islice(scenes(seed, None), renders)]
    for name, images in (
        ("renders", right),
        ("reconstructions", [(shown, vae(image)) for shown, image in right]),
    ):
        rows.append((name, "rejects", errors(images, True), renders))
    each = max(1, renders // 4)
    for name in FAULTS:
        made = [(shown, render(objects)) for shown, objects in islice(faulty(name, seed), each)]
        rows.append((name, "accepts", errors(made, False), each))
        worn = [(shown, vae(image)) for shown, image in made]
        rows.append((f"{name}, reconstructed", "accepts", errors(worn, False), each))
    return rows


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument("--renders", type=int, default=2000, help="Draws this many scenes.")
    parser.add_argument("--seed", type=int, default=0, help="Seeds the scenes.")
    options = parser.parse_args()
    print("| images | error | count | of | 95 % interval |\n|---|---|--:|--:|---|")
    for name, error, wrong, total in table(options.renders, options.seed):
        low, high = wilson(wrong, total)
        print(f"| {name} | false {error} | {wrong} | {total} | [{low:.4f}, {high:.4f}] |")


if __name__ == "__main__":
    main()
