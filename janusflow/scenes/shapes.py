"""Eight shapes in ten colours, drawn by numpy with anti-aliased edges.

A shape is a function of unit coordinates (u to the right, v down, the box is [-1, 1]^2) that
returns which points are inside. An image is a light background onto which the coverage of every
object is blended.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, cos, floor, pi, sin

import numpy as np

SIDE = 96  # pixels; objects' coordinates refer to this width, whatever size is drawn
BACKGROUND = (245, 244, 240)
COLORS = {
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

Inside = Callable[[np.ndarray, np.ndarray], np.ndarray]
SHAPES: dict[str, Inside] = {}


@dataclass(frozen=True)
class Obj:
    """One object: its box's centre (x, y) and width in pixels of a 96 x 96 image, y down."""

    shape: str
    color: str
    x: float
    y: float
    size: float


def shape(inside: Inside) -> Inside:
    """A decorator that registers a shape under its function's name."""
    SHAPES[inside.__name__] = inside
    return inside


@shape
def circle(u, v):
    return u**2 + v**2 <= 1


@shape
def square(u, v):
    return np.maximum(abs(u), abs(v)) <= 0.88


@shape
def triangle(u, v):
    return (v <= 0.82) & (abs(u) <= (v + 0.92) / 1.74)


@shape
def star(u, v):
    """A five-pointed star: points fold into the half sector beside the tip, bounded by one line."""
    tip, corner = 1.05, 0.5
    x, y = abs(u), 0.08 - v
    for angle in (2 * pi / 5, pi / 5):  # mirror what lies beyond this angle from the tip
        beyond = np.maximum(x * cos(angle) - y * sin(angle), 0)
        x, y = abs(x - 2 * cos(angle) * beyond), y + 2 * sin(angle) * beyond
    dx, dy = corner * sin(pi / 5), tip - corner * cos(pi / 5)
    return x * dy + y * dx <= tip * dx


@shape
def cross(u, v):
    return (np.minimum(abs(u), abs(v)) <= 0.33) & (np.maximum(abs(u), abs(v)) <= 0.97)


@shape
def ring(u, v):
    return abs(np.hypot(u, v) - 0.76) <= 0.24


@shape
def diamond(u, v):
    return abs(u) / 0.8 + abs(v) <= 1


@shape
def heart(u, v):
    """The heart curve (x^2 + y^2 - 1)^3 = x^2 y^3, fitted into the box."""
    x, y = 1.16 * u, 0.12 - 1.12 * v
    outside = x * x + y * y - 1
    return outside * outside * outside <= x * x * y * y * y


def coverage(shape: str, x, y, size, top: int, left: int, height: int, width: int, samples=4):
    """Returns the fraction of each pixel inside the shape, (height, width) in [0, 1].

    Pixel (0, 0) spans [left, left + 1] x [top, top + 1]; each pixel is sampled at `samples`^2
    points.
    """
    offsets = (np.arange(samples) + 0.5) / samples
    u = (left + (np.arange(width)[:, None] + offsets).ravel() - x) * (2 / size)
    v = (top + (np.arange(height)[:, None] + offsets).ravel() - y) * (2 / size)
    inside = SHAPES[shape](u[None, :].astype(np.float32), v[:, None].astype(np.float32))
    rows = inside.reshape(height, samples, -1).sum(1, dtype=np.uint8)
    return rows.reshape(height, width, samples).sum(2) / np.float32(samples**2)


@lru_cache(maxsize=4096)
def _stamp(shape: str, color: str, dx: float, dy: float, size: float):
    """Returns factor and addend by which an object at (dx, dy) of a pixel changes the canvas."""
    reach = ceil(size / 2) + 1
    mask = coverage(shape, dx, dy, size, -reach, -reach, 2 * reach + 1, 2 * reach + 1)[..., None]
    return 1 - mask.repeat(3, -1), mask * np.array(COLORS[color], np.float32)


def _blend(canvas: np.ndarray, obj: Obj, scale: float) -> None:
    column, row = floor(obj.x * scale), floor(obj.y * scale)
    dx, dy = obj.x * scale - column, obj.y * scale - row
    keep, paint = _stamp(obj.shape, obj.color, dx, dy, obj.size * scale)
    top, left = row - len(keep) // 2, column - len(keep) // 2
    area = canvas[max(top, 0) : max(top + len(keep), 0), max(left, 0) : max(left + len(keep), 0)]
    seen = np.s_[max(-top, 0) :, max(-left, 0) :]
    area *= keep[seen][: area.shape[0], : area.shape[1]]
    area += paint[seen][: area.shape[0], : area.shape[1]]


def render(objects: Iterable[Obj], size: int = SIDE) -> np.ndarray:
    """Renders the objects, later ones on top, to (size, size, 3) uint8."""
    canvas = np.tile(np.array(BACKGROUND, np.float32), (size, size, 1))
    for obj in objects:
        _blend(canvas, obj, size / SIDE)
    return (canvas + 0.5).astype(np.uint8)


def render_batch(scenes: Iterable[Iterable[Obj]], size: int = SIDE) -> np.ndarray:
    """Renders several scenes to (N, size, size, 3) uint8."""
    return np.stack([render(objects, size) for objects in scenes])
