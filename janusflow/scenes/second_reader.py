"""A second, independent reader of the world of scenes, which shares no code with the scorer.

It labels connected regions that differ from the background, names each by its colour and by the
shape whose silhouette, stretched to the same box, overlaps it most, and judges by the words of the
prompt alone.
"""

import re
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

PAPER = np.array([245, 244, 240], float)
COLOURS = {
    "red": (220, 30, 40),
    "orange": (255, 130, 10),
    "yellow": (252, 215, 30),
    "green": (30, 155, 65),
    "cyan": (50, 210, 225),
    "blue": (35, 80, 225),
    "purple": (135, 45, 190),
    "pink": (250, 140, 195),
    "brown": (125, 75, 35),
    "black": (25, 25, 30),
}
NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4}
BOX = 40  # pixels to which silhouettes are stretched
ALIKE = 0.68  # overlap below which a silhouette is no known shape


class Seen(NamedTuple):
    colour: str | None
    shape: str | None
    x: float
    y: float
    size: float


def silhouettes(draw) -> dict[str, np.ndarray]:
    """Returns a stretched mask of each shape; `draw(shape)` gives a large image of one in black."""
    names = ("circle", "square", "triangle", "star", "cross", "ring", "diamond", "heart")
    masks = {name: np.abs(draw(name) - PAPER).sum(-1) > 300 for name in names}
    return {name: _stretched(mask, mask) for name, mask in masks.items()}


def _stretched(mask: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Returns the box of a mask, resampled to BOX x BOX coverages."""
    rows, columns = ndimage.find_objects(mask.astype(int))[0]
    image = Image.fromarray(share[rows, columns].astype(np.float32))
    return np.asarray(image.resize((BOX, BOX), Image.Resampling.BILINEAR))


@cache
def _drawn() -> dict[str, np.ndarray]:
    from janusflow.scenes.shapes import Obj, render

    return silhouettes(lambda name: render([Obj(name, "black", 48, 48, 60)], 384).astype(float))


def look(image: np.ndarray) -> list[Seen]:
    """Returns the regions of at least 30 pixels in an image (96, 96, 3)."""
    away = np.linalg.norm(image - PAPER, axis=-1)
    labels, count = ndimage.label(away > 60, np.ones((3, 3)))
    return [
        _seen(image, away, labels == n) for n in range(1, count + 1) if (labels == n).sum() >= 30
    ]


def _seen(image: np.ndarray, away: np.ndarray, own: np.ndarray) -> Seen:
    paint = np.median(image[own & (away >= np.median(away[own]))], axis=0)
    name, distance = min(
        ((n, np.linalg.norm(paint - np.array(c))) for n, c in COLOURS.items()), key=lambda p: p[1]
    )
    body = own & (away > np.linalg.norm(paint - PAPER) / 2)  # half covered counts
    (rows, columns), *_ = ndimage.find_objects(body.astype(int))
    full = np.linalg.norm(paint - PAPER)
    share = _stretched(body, np.where(own, (away / full).clip(max=1), 0))
    overlap = {
        n: np.minimum(share, m).sum() / np.maximum(share, m).sum() for n, m in _drawn().items()
    }
    best = max(overlap, key=overlap.get)
    even = max(np.ptp((rows.start, rows.stop)), np.ptp((columns.start, columns.stop)))
    good = overlap[best] > ALIKE and even < 1.35 * min(body.any(1).sum(), body.any(0).sum())
    y, x = (rows.start + rows.stop) / 2, (columns.start + columns.stop) / 2
    return Seen(name if distance < 75 else None, best if good else None, x, y, float(even))


def wanted(text: str) -> tuple[list[tuple[int, str | None, str]], str | None]:
    """Returns (count, colour, shape) for each noun of a prompt, and the first two's relation."""
    words = re.findall(r"[a-z]+", text)
    relation = next((r for r in ("left of", "right of", "above", "below") if r in text), None)
    nouns = []
    for i, word in enumerate(words):
        shape = {"crosses": "cross"}.get(word, word if word == "cross" else word.rstrip("s"))
        if shape in _drawn():
            colour = words[i - 1] if words[i - 1] in COLOURS else None
            nouns.append((NUMBERS[words[i - 1 - (colour is not None)]], colour, shape))
    return nouns, relation


def fits(seen: Seen, colour: str | None, shape: str) -> bool:
    return seen.shape == shape and colour in (None, seen.colour)


def strict(image: np.ndarray, text: str) -> bool:
    """Returns whether an image shows exactly what a prompt says."""
    objects, (nouns, relation) = look(image), wanted(text)
    if not all(o.colour and o.shape for o in objects) or len(objects) != sum(n for n, *_ in nouns):
        return False
    if any(sum(fits(o, c, s) for o in objects) != n for n, c, s in nouns):
        return False
    if relation is None:
        return True
    a, b = (next(o for o in objects if fits(o, c, s)) for _, c, s in nouns)
    return _lies(a, relation, b)


def _lies(a: Seen, relation: str, b: Seen) -> bool:
    """GenEval's rule: within 60 degrees of the direction, less a tenth of both widths per axis."""
    reach = 0.1 * (a.size + b.size)
    dx, dy = (np.sign(d) * max(abs(d) - reach, 0) for d in (a.x - b.x, a.y - b.y))
    along = {"left of": -dx, "right of": dx, "above": -dy, "below": dy}[relation]
    return bool(along > 0.5 * np.hypot(dx, dy))
