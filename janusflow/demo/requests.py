"""What a visitor may ask for. Nothing else reaches the model."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from samplers.core import SOLVERS, Solver

MAX_TEXT = 400  # characters of a prompt or a question
MAX_CALLS = 100  # of the guided velocity, for a picture
MAX_GUIDANCE = 15
MAX_SEED = 2**31 - 1
MAX_TOKENS = 128  # of an answer
MAX_BYTES = 8 * 2**20  # of a picture that is sent
MAX_PIXELS = 16_000_000  # of a picture that is sent, before it is shrunk
SIDE = 1_024  # pixels that are kept of it, by side
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
TOO_WIDE = f"The picture has more than {MAX_PIXELS // 10**6} million pixels; please shrink it."
FIRST = ("auto", "euler", "heun", "abm", "dpmpp_2m")  # the samplers worth meeting first


class Refused(ValueError):
    """A sentence for the visitor: nothing of the machine in it."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A picture somebody asked for, within the limits; `Refused` says which one it passes."""

    prompt: str
    sampler: str = "auto"
    calls: int = 16
    guidance: float = 2.0
    seed: int = 0

    def __post_init__(self):
        text(self.prompt, "prompt")
        number(self.guidance, "guidance", 0, MAX_GUIDANCE)
        whole(self.seed, "seed", 0, MAX_SEED)
        whole(self.calls, "number of calls", 1, MAX_CALLS)
        if self.sampler not in samplers():
            raise Refused("This sampler is not on the list; please choose one that is.")
        if self.solver.cost(1) > self.calls:
            least = self.solver.cost(1)
            raise Refused(f"The sampler {self.sampler} takes {least} calls or more; allow them.")

    @property
    def solver(self) -> Solver:
        return SOLVERS[self.sampler]

    @property
    def steps(self) -> int:
        """The most steps that cost no more than the calls allowed."""
        fitting = (n for n in range(self.calls, 0, -1) if self.solver.cost(n) <= self.calls)
        return next(fitting)


def samplers() -> list[str]:
    """Those that spend a known number of calls and need nothing but the noise."""
    names = [s.name for s in SOLVERS.values() if s.fixed]
    return [*FIRST, *sorted(set(names) - set(FIRST))]


def text(value, what: str) -> str:
    """`value` without blanks around it, if it is a text of 1 to MAX_TEXT characters."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise Refused(f"There is no {what} yet; please write one.")
    if len(value) > MAX_TEXT:
        raise Refused(f"The {what} is longer than {MAX_TEXT} characters; please shorten it.")
    return value.strip()


def number(value, what: str, low: float, high: float) -> float:
    """`value`, if it is a finite number from `low` to `high`."""
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or not low <= value <= high:
        raise Refused(f"The {what} must be from {low} to {high}.")
    return value


def whole(value, what: str, low: int, high: int) -> int:
    """`value` as an int, if it is a whole number from `low` to `high`."""
    if number(value, what, low, high) != int(value):
        raise Refused(f"The {what} must be a whole number.")
    return int(value)


def picture(path: str | Path | None) -> Image.Image:
    """A sent file as an upright RGB picture of at most SIDE pixels a side.

    Its size is looked at before it is opened and its dimensions before it is decoded.
    """
    if path is None:
        raise Refused("There is no picture yet; please choose one.")
    try:
        if Path(path).stat().st_size > MAX_BYTES:
            raise Refused(f"The file is larger than {MAX_BYTES // 2**20} MB; please shrink it.")
        return _decoded(path)
    except Refused:
        raise
    except Image.DecompressionBombError as error:
        raise Refused(TOO_WIDE) from error
    except Exception as error:  # pillow raises whatever its decoders do
        raise Refused(
            f"This is not a whole image; please send one of {', '.join(FORMATS)}."
        ) from error


def _decoded(path: str | Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(path, formats=FORMATS)
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise Refused(TOO_WIDE)
        image.draft("RGB", (SIDE, SIDE))  # a JPEG is decoded small at once
        upright = ImageOps.exif_transpose(image).convert("RGBA")
    plain = Image.new("RGB", upright.size, "white")
    plain.paste(upright, mask=upright.getchannel("A"))
    plain.thumbnail((SIDE, SIDE))
    return plain
