"""Reads the objects in an image of the world of scenes without a network, and scores it for a
prompt.

Pixels that differ from the background form connected components. A component's colour is that of
its most saturated pixels; its shape is the one whose rendering, with the same mass and centre of
mass, leaves the smallest residual. A component that no shape or colour explains still counts as an
object, without a name.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from janusflow.scenes.shapes import COLORS, SHAPES, SIDE, coverage
from janusflow.scenes.world import Prompt, relates

CONTRAST = 60  # RGB distance from the background at which a pixel belongs to an object
SPECK = 30  # pixels (of 96 x 96) below which a component is dirt
MISSHAPEN = 0.14  # share of a component's energy that its best shape may leave unexplained
STRAY = 2  # weight of an object's pixels outside its shape, counted at full strength
MISCOLORED = 75  # RGB distance to the nearest colour beyond which an object has none
PALETTE = np.array(list(COLORS.values()), np.float32)


@dataclass(frozen=True)
class Found:
    """An object that was read from an image; shape or colour is None if none fits.

    x, y and size are as in `Obj`; `residual` is the fraction of the component's energy that the
    shape leaves unexplained.
    """

    shape: str | None
    color: str | None
    x: float
    y: float
    size: float
    residual: float


@dataclass(frozen=True)
class Score:
    """The scores of an image.

    `strict` requires exactly the right set of objects and the relation. `lenient`, as in GenEval,
    requires at least the requested objects, and for counting prompts no more of that kind.
    """

    strict: bool
    lenient: bool
    found: tuple[Found, ...]


@lru_cache
def _moments(shape: str) -> tuple[float, float]:
    """Returns the area as a fraction of size^2, and how far its mass is below the centre."""
    mask = coverage(shape, 0, 0, 200, -100, -100, 200, 200)
    return mask.sum() / 200**2, (mask.sum(1) @ (np.arange(200) - 99.5)) / mask.sum() / 200


def _background(image: np.ndarray) -> np.ndarray:
    rows, columns = image[[0, 1, -2, -1]], image[:, [0, 1, -2, -1]]
    return np.median(np.concatenate([rows.reshape(-1, 3), columns.reshape(-1, 3)]), axis=0)


def _noise(excess: np.ndarray) -> float:
    """Returns the variance of the background's pixels, summed over channels, by medians that ignore
    objects.

    It is at most that of a deviation of 20 per channel: more is not noise but a failed image.
    """
    deviation = np.median(abs(excess), axis=(0, 1)) * 1.4826
    return float((deviation.clip(max=20) ** 2).sum())


def _windows(excess: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Returns top, left and mask of each component, with a margin of up to 4 pixels."""
    strong = np.linalg.norm(excess, axis=-1) > CONTRAST
    labels, _ = ndimage.label(strong, np.ones((3, 3)))
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        top, left = max(rows.start - 4, 0), max(columns.start - 4, 0)
        yield top, left, labels[top : rows.stop + 4, left : columns.stop + 4] == number


def _candidates(share: np.ndarray) -> Iterator[tuple[str, float, float, float, np.ndarray]]:
    """Yields each shape with the mass and centre of mass of `share`: name, x, y, size, coverage."""
    mass = max(share.sum(), 1.0)  # of patches with opposite colours little may be left
    x = share.sum(0) @ (np.arange(share.shape[1]) + 0.5) / mass
    y = share.sum(1) @ (np.arange(share.shape[0]) + 0.5) / mass
    for shape in SHAPES:
        area, sag = _moments(shape)
        size = float(np.sqrt(mass / area))
        mask = coverage(shape, x, y - sag * size, size, 0, 0, *share.shape, samples=3)
        yield shape, float(x), float(y - sag * size), size, mask


def _identify(excess: np.ndarray, own: np.ndarray, noise: float) -> tuple[list, np.ndarray, float]:
    """Returns the best fit (shape, x, y, size), the paint and the residual of the component `own`
    of a window.

    `excess` is the image minus its background, the paint the same at full coverage.
    """
    strength = np.linalg.norm(excess, axis=-1)
    paint = np.median(excess[own & (strength >= np.median(strength[own]))], axis=0)
    power = max(paint @ paint, 1.0)
    near = ndimage.binary_dilation(own, iterations=2)
    excess = excess * near[..., None]
    share = excess @ paint / power
    unexplained, fit, mask = min(
        (float(((excess - mask[..., None] * paint) ** 2).sum()), fit, mask)
        for *fit, mask in _candidates(share)
    )
    stray = ndimage.binary_opening(own & (mask < 0.1), np.ones((3, 3)))  # however pale it is
    unexplained += STRAY * stray.sum() * power - noise * near.sum()
    return fit, paint, float(max(unexplained, 0) / (power * max(share.sum(), 1.0)))


def _color(rgb: np.ndarray) -> str | None:
    distance = np.linalg.norm(PALETTE - rgb, axis=-1)
    return list(COLORS)[distance.argmin()] if distance.min() < MISCOLORED else None


def read(image: np.ndarray) -> list[Found]:
    """Returns the objects in an image (H, W, 3) uint8; units are pixels of a 96 x 96 image."""
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"expected a (H, W, 3) uint8 image, got {image.shape} {image.dtype}; "
            "convert it with numpy.asarray(image.convert('RGB'))"
        )
    background = _background(image)
    excess = image - background.astype(np.float32)
    noise, scale = _noise(excess), SIDE / image.shape[1]
    found = []
    for top, left, own in _windows(excess):
        if own.sum() * scale**2 < SPECK:
            continue
        window = excess[top : top + own.shape[0], left : left + own.shape[1]]
        (shape, x, y, size), paint, residual = _identify(window, own, noise)
        name = shape if residual < MISSHAPEN else None
        where = np.array([left + x, top + y, size]) * scale
        found.append(Found(name, _color(background + paint), *where.tolist(), residual))
    return found


def _placed(found: Sequence[Found], prompt: Prompt) -> bool:
    if prompt.relation is None:
        return True
    first, second = ([obj for obj in found if need.matches(obj)] for need in prompt.needs)
    return any(relates(a, prompt.relation, b) for a in first for b in second if a is not b)


def judge(found: Sequence[Found], prompt: Prompt) -> Score:
    """Scores the objects that were found against a prompt's requirements."""
    known = all(obj.shape and obj.color for obj in found)
    counts = [sum(need.matches(obj) for obj in found) for need in prompt.needs]
    asked = [need.count for need in prompt.needs]
    placed = _placed(found, prompt)
    exact = counts == asked and placed
    at_least = all(c >= a for c, a in zip(counts, asked, strict=True)) and placed
    strict = exact and known and len(found) == sum(asked)
    return Score(strict, exact if prompt.category == "counting" else at_least, tuple(found))


def score(image: np.ndarray, prompt: Prompt) -> Score:
    """Reads an image (H, W, 3) uint8 and scores it for a prompt."""
    return judge(read(image), prompt)
