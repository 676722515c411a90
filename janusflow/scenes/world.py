"""Captioned scenes and prompts of coloured shapes, as pure functions of a key.

`scene(split, index)` returns an image's objects with their caption, and `prompt(split, category,
index)` a request with its exact requirements. A caption names every object; attributes that a
prompt does not mention are free.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.random import Generator

from janusflow.scenes.shapes import COLORS as COLORS
from janusflow.scenes.shapes import SHAPES as SHAPES
from janusflow.scenes.shapes import SIDE
from janusflow.scenes.shapes import Obj as Obj
from janusflow.scenes.shapes import render as render
from janusflow.scenes.shapes import render_batch as render_batch
from janusflow.utils.keywords import choice

GAP = 4  # pixels between the boxes of two objects, at least
SIZES = range(28, 35)  # widths in pixels: large, yet four fit
NUMBERS = ("zero", "one", "two", "three", "four")
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}

CATEGORIES = (
    "single_object",
    "two_object",
    "counting",
    "colors",
    "position",
    "color_attr",
)  # GenEval's names
SPLITS = {
    "train": (*CATEGORIES, "mixed"),
    "test": (*CATEGORIES, "mixed"),
    "pairs": ("colors", "color_attr"),  # shapes in colours they never had in training
    "counts": ("counting",),  # numbers of a shape never seen in training
    "relations": ("position",),  # arrangements of two shapes never asked for in training
    "long": ("long",),  # three or four facts
    "paraphrases": CATEGORIES,  # sentences never used in training, of words that were
}
FRAMES = {
    "train": ("{}", "{}", "{}", "a picture of {}", "there {verb} {}"),
    "paraphrases": ("in the picture there {verb} {}", "there is a picture of {}"),
}

_names = list(SHAPES)
HELD_PAIRS = {(s, list(COLORS)[(3 * i + 1) % 10]) for i, s in enumerate(_names)}
HELD_COUNTS = {
    ("circle", 4),
    ("triangle", 2),
    ("cross", 3),
    ("ring", 2),
    ("diamond", 3),
    ("heart", 4),
}
HELD_RELATIONS = {
    (a, relation, _names[(i + 3) % 8])
    for i, a in enumerate(_names)
    for relation in ("left of", "below")
}


@dataclass(frozen=True)
class Need:
    """A requirement: `count` objects of this shape, in any colour if `color` is None."""

    shape: str
    color: str | None = None
    count: int = 1

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}" if self.color else self.shape

    @property
    def plural(self) -> str:
        return self.name + ("es" if self.shape == "cross" else "s")

    @property
    def phrase(self) -> str:
        if self.count != 1:
            return f"{NUMBERS[self.count]} {self.plural}"
        return f"{'an' if self.name[0] in 'aeiou' else 'a'} {self.name}"

    def matches(self, obj: Obj) -> bool:
        return self.shape == obj.shape and self.color in (None, obj.color)


@dataclass(frozen=True)
class Prompt:
    """A request: its text, and exactly which objects must be there.

    `relation` is the relation of the first need's object to the second's.
    """

    text: str
    category: str
    needs: tuple[Need, ...]
    relation: str | None = None


@dataclass(frozen=True)
class Scene:
    """Objects that fulfil a prompt, and no others."""

    objects: tuple[Obj, ...]
    prompt: Prompt

    @property
    def caption(self) -> str:
        return self.prompt.text

    @property
    def category(self) -> str:
        return self.prompt.category


def generator(*key: str | int) -> Generator:
    """Returns a random generator that depends on the key alone and is the same on every machine."""
    words = [crc32(part.encode()) if isinstance(part, str) else int(part) for part in key]
    return np.random.default_rng(words)


def pick(rng: Generator, options: Sequence):
    return options[int(rng.integers(len(options)))]


def opposite(relation: str) -> str:
    x, y = RELATIONS[relation]
    return next(name for name, way in RELATIONS.items() if way == (-x, -y))


def _colors_of(shape: str, split: str) -> list[str]:
    return [color for color in COLORS if ((shape, color) in HELD_PAIRS) == (split == "pairs")]


def _two_shapes(rng: Generator) -> list[str]:
    return [_names[i] for i in rng.choice(len(_names), 2, replace=False)]


def _single_object(rng, _split):
    return [Need(pick(rng, _names))], None


def _two_object(rng, _split):
    return [Need(shape) for shape in _two_shapes(rng)], None


def _counting(rng, split):
    asked = {(shape, n) for shape in _names for n in (2, 3, 4)}
    options = HELD_COUNTS if split == "counts" else asked - HELD_COUNTS
    shape, count = pick(rng, sorted(options))
    return [Need(shape, None, count)], None


def _colors(rng, split):
    shape = pick(rng, _names)
    return [Need(shape, pick(rng, _colors_of(shape, split)))], None


def _position(rng, split):
    """Returns a prompt with a relation; in training half of them name colours too."""
    while True:
        (a, b), relation = _two_shapes(rng), pick(rng, list(RELATIONS))
        held = {(a, relation, b), (b, opposite(relation), a)} & HELD_RELATIONS
        if bool(held) == (split == "relations"):
            break
    named = split == "train" and rng.random() < 0.5
    colors = [pick(rng, _colors_of(shape, split)) if named else None for shape in (a, b)]
    return [Need(a, colors[0]), Need(b, colors[1])], relation


def _color_attr(rng, split):
    while True:
        a, b = _two_shapes(rng)
        first = pick(rng, _colors_of(a, split))
        if second := sorted(set(_colors_of(b, split)) - {first}):
            return [Need(a, first), Need(b, pick(rng, second))], None


def _mixed(rng, split):
    """Returns one to four objects of few shapes and colours, which differ in one of the two."""
    while True:
        count = int(rng.integers(3, 5) if split == "long" else rng.integers(1, 5))
        shapes = rng.choice(_names, min(count, int(rng.integers(1, 4))), replace=False)
        colors = rng.choice(list(COLORS), min(count, int(rng.integers(1, 4))), replace=False)
        pairs = [(str(pick(rng, shapes)), str(pick(rng, colors))) for _ in range(count)]
        enough = split != "long" or len(set(pairs)) >= 3
        held = HELD_PAIRS & set(pairs) or HELD_COUNTS & Counter(s for s, _ in pairs).items()
        if enough and not held:
            return [Need(s, c, n) for (s, c), n in Counter(pairs).items()], None


BUILDERS: dict[str, Callable[[Generator, str], tuple[list[Need], str | None]]] = {
    "single_object": _single_object,
    "two_object": _two_object,
    "counting": _counting,
    "colors": _colors,
    "position": _position,
    "color_attr": _color_attr,
    "mixed": _mixed,
    "long": _mixed,
}


def _sentence(needs: Sequence[Need], relation: str | None) -> str:
    phrases = [need.phrase for need in needs]
    if relation:
        return f"{phrases[0]} {relation} {phrases[1]}"
    return ", ".join([*phrases[:-2], " and ".join(phrases[-2:])])


def categories_of(split: str) -> tuple[str, ...]:
    choice("no split named", split, SPLITS)
    return SPLITS[split]


def prompt(split: str, category: str, index: int) -> Prompt:
    """Returns prompt number `index` of a category of a split; `SPLITS` lists both."""
    choice(f"the split {split!r} has no category", category, categories_of(split))
    rng = generator(split, category, index)
    needs, relation = BUILDERS[category](rng, split)
    frame = pick(rng, FRAMES.get(split, ("{}",)))
    verb = "is" if needs[0].count == 1 else "are"
    text = frame.format(_sentence(needs, relation), verb=verb)
    return Prompt(text, category, tuple(needs), relation)


def describe(objects: Sequence[Obj]) -> str:
    """Returns the complete caption with objects in canonical order: by shape, then by colour."""
    groups = Counter((_names.index(o.shape), list(COLORS).index(o.color)) for o in objects)
    needs = [Need(_names[s], list(COLORS)[c], n) for (s, c), n in sorted(groups.items())]
    return _sentence(needs, None)


def relates(a: Obj, relation: str, b: Obj) -> bool:
    """Returns whether two objects are in a relation, by GenEval's rule.

    The offset of their centres, reduced by a tenth of both sizes along each axis, must point within
    60 degrees of the named direction. Objects placed diagonally fulfil two relations.
    """
    offset = np.array([a.x - b.x, a.y - b.y])
    offset = np.sign(offset) * np.maximum(abs(offset) - 0.1 * (a.size + b.size), 0)
    return bool(offset @ RELATIONS[relation] > 0.5 * np.hypot(*offset))


def _clear(offsets: np.ndarray, relation: str) -> np.ndarray:
    along = offsets @ np.array(RELATIONS[relation])
    return along > 0.866 * np.hypot(offsets[..., 0], offsets[..., 1])


def clearly(a: Obj, relation: str, b: Obj) -> bool:
    """Returns whether the relation holds beyond dispute: within 30 degrees of its direction."""
    return bool(_clear(np.array([a.x - b.x, a.y - b.y]), relation))


def _places(rng: Generator, sizes: np.ndarray, relation: str | None) -> np.ndarray:
    """Returns integer centres (n, 2), uniform among those that keep boxes apart and inside."""
    reach = sizes[:, None] // 2 + 2
    apart = (sizes[:, None] + sizes) / 2 + GAP
    i, j = np.triu_indices(len(sizes), 1)
    tries = (1, 16, 64, 512)[len(sizes) - 1]
    while True:
        xy = rng.integers(reach, SIDE - reach + 1, (tries, len(sizes), 2))
        good = (abs(xy[:, i] - xy[:, j]).max(-1) >= apart[i, j]).all(-1)
        if relation:
            good &= _clear(xy[:, 0] - xy[:, 1], relation)
        if good.any():
            return xy[good.argmax()]


def realise(prompt: Prompt, rng: Generator) -> Scene:
    """Returns a scene that fulfils a prompt, with random places and free colours (one a group)."""
    pairs = []
    for need in prompt.needs:
        pairs += [
            (need.shape, need.color or pick(rng, _colors_of(need.shape, "train")))
        ] * need.count
    sizes = rng.integers(SIZES.start, SIZES.stop, len(pairs))
    places = _places(rng, sizes, prompt.relation)
    objects = [
        Obj(*pair, int(x), int(y), int(size))
        for pair, (x, y), size in zip(pairs, places, sizes, strict=True)
    ]
    return Scene(tuple(objects), prompt)


def scene(split: str, index: int, category: str | None = None) -> Scene:
    """Returns scene number `index` of a split, of a random category unless one is named."""
    rng = generator(split, index, "scene")
    category = category or pick(rng, categories_of(split))
    return realise(prompt(split, category, index), rng)
