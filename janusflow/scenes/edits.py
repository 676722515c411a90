"""Edits of scenes: a scene, an instruction, the scene after it, and an exact judge of the result.

An edit is a pure function of (split, index): one object is recoloured, moved, added or removed, and
the others stay where they are.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image

from janusflow.scenes import scorer
from janusflow.scenes.shapes import COLORS, SHAPES, SIDE, Obj, render
from janusflow.scenes.world import (
    GAP,
    RELATIONS,
    SIZES,
    Need,
    Prompt,
    clearly,
    generator,
    pick,
    realise,
    relates,
)
from janusflow.utils import atomic_io

NEAR = 6.0  # pixels by which what stays may be off its place
TRIES = 200  # places that are tried for an object


@dataclass(frozen=True)
class Edit:
    """An edit; `kept` are the objects of `after` that must be where they are in `before`."""

    text: str
    kind: str
    before: tuple[Obj, ...]
    after: tuple[Obj, ...]
    kept: tuple[Obj, ...]
    request: Prompt  # what the scorer asks of the image after


Changed = tuple[str, list[Obj], list[Obj], str | None] | None
KINDS: dict[str, Callable[[list[Obj], Generator], Changed]] = {}


def kind(change: Callable[[list[Obj], Generator], Changed]) -> Callable:
    """A decorator that registers a kind of edit.

    The function maps (objects, rng) to (instruction, objects after, objects kept, relation of the
    first two), or returns None for a scene that does not suit it.
    """
    KINDS[change.__name__] = change
    return change


@kind
def recolour(objects: list[Obj], rng: Generator) -> Changed:
    known = {(o.shape, o.color) for o in objects}
    first, *rest = objects
    color = pick(rng, [c for c in COLORS if (first.shape, c) not in known])
    after = [replace(first, color=color), *rest]
    return f"make {_the(first)} {color}", after, after, None


@kind
def move(objects: list[Obj], rng: Generator) -> Changed:
    if len(objects) != 2:
        return None
    first, other = objects
    relation = pick(rng, [name for name in RELATIONS if not relates(first, name, other)])
    for _ in range(TRIES):
        moved = _placed(first, [other], rng)
        if moved and clearly(moved, relation, other):
            text = f"move {_the(first)} {relation} {_the(other)}"
            return text, [moved, other], [other], relation
    return None


@kind
def add(objects: list[Obj], rng: Generator) -> Changed:
    if len(objects) > 2:
        return None
    known = {(o.shape, o.color) for o in objects}
    shape, color = pick(rng, [(s, c) for s in SHAPES for c in COLORS if (s, c) not in known])
    fresh = Obj(shape, color, 0, 0, int(pick(rng, SIZES)))
    for _ in range(TRIES):
        if placed := _placed(fresh, objects, rng):
            return f"add {Need(shape, color).phrase}", [*objects, placed], objects, None
    return None


@kind
def remove(objects: list[Obj], rng: Generator) -> Changed:  # noqa: ARG001
    first, *rest = objects
    return (f"remove {_the(first)}", rest, rest, None) if rest else None


def edit(split: str, index: int, kind: str | None = None) -> Edit:
    """Returns edit number `index` of a split, of a random kind unless one is named."""
    rng = generator(split, index, kind or "", "edit")
    kind = kind or pick(rng, list(KINDS))
    while True:
        before = _scene(rng)
        if (changed := KINDS[kind](before, rng)) is None:
            continue
        text, after, kept, relation = changed
        needs = tuple(Need(o.shape, o.color) for o in after)
        request = Prompt(text, kind, needs, relation)
        return Edit(text, kind, tuple(before), tuple(after), tuple(kept), request)


def judge(picture: np.ndarray, edit: Edit) -> bool:
    """Returns whether an image (H, W, 3) uint8 shows exactly the edit, other objects kept."""
    score = scorer.score(picture, edit.request)
    return score.strict and all(_there(obj, score.found) for obj in edit.kept)


def _there(obj: Obj, found: Sequence[scorer.Found]) -> bool:
    return any(f.shape == obj.shape and np.hypot(f.x - obj.x, f.y - obj.y) <= NEAR for f in found)


def _scene(rng: Generator) -> list[Obj]:
    """Returns one to three objects that differ in shape or colour."""
    pairs = [(shape, color) for shape in SHAPES for color in COLORS]
    chosen = rng.choice(len(pairs), int(rng.integers(1, 4)), replace=False)
    needs = tuple(Need(*pairs[i]) for i in chosen)
    return list(realise(Prompt("", "edit", needs), rng).objects)


def _placed(obj: Obj, others: Sequence[Obj], rng: Generator) -> Obj | None:
    """Returns the object at a random place, or None if it is too close to another."""
    reach = int(obj.size) // 2 + 2
    x, y = (int(n) for n in rng.integers(reach, SIDE - reach + 1, 2))
    for other in others:
        if max(abs(x - other.x), abs(y - other.y)) < (obj.size + other.size) / 2 + GAP:
            return None
    return replace(obj, x=x, y=y)


def _the(obj: Obj) -> str:
    return f"the {obj.color} {obj.shape}"


def write(folder: Path, count: int, held_out: int = 64, seed: int = 0) -> dict[str, int]:
    """Writes edits as files for `janusflow train --data FOLDER/train.jsonl`.

    They are images/, and one line {"source", "instruction", "target"} per edit in train.jsonl and
    test.jsonl.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    for split, number in (("train", count), ("test", held_out)):
        lines = []
        for index in range(number):
            one, name = edit(split, seed * 2**32 + index), f"{split}-{index:06d}"
            row = {"source": f"images/{name}-before.png", "instruction": one.text}
            row["target"] = f"images/{name}-after.png"
            Image.fromarray(render(one.before)).save(folder / row["source"])
            Image.fromarray(render(one.after)).save(folder / row["target"])
            lines.append(json.dumps(row))
        atomic_io.write_text(folder / f"{split}.jsonl", "\n".join(lines) + "\n")
    return {"train": count, "test": held_out}
