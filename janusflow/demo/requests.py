"""The requests that a visitor may make. Nothing else reaches the model."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from janusflow.pipelines.presets import QUALITIES
from janusflow.utils import images
from janusflow.utils.text import printable
from janusflow.utils.typed import is_number
from samplers.core import SOLVERS, Solver

MAX_TEXT = 400  # characters of a prompt or a question
MAX_NFE = 100  # evaluations of the guided velocity, for an image
MAX_STRENGTH = 1.0  # of an edit
MAX_COUNT = 4  # images of one request
MAX_GUIDANCE = 15
MAX_FRAMES = 16  # of a trajectory
MAX_SEED = 2**31 - 1
MAX_TOKENS = 128  # of an answer
MAX_BYTES = 8 * 2**20  # of an image that is sent
MAX_PIXELS = 16_000_000  # of an image that is sent, before it is shrunk
SIDE = 1_024  # pixels that are kept of it, by side
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
TOO_WIDE = f"The image has more than {MAX_PIXELS // 10**6} million pixels; please shrink it."
OWN = "own"  # in a preset's place
FIRST = ("auto", "euler", "heun", "abm", "dpmpp_2m")  # the samplers worth meeting first


class InvalidRequest(ValueError):
    """A message for the visitor, without details of the machine."""


class Missing(InvalidRequest):
    """An input is still missing; this is shown as a hint, not as an error."""


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """A request for images, within the limits.

    Raises `InvalidRequest` naming the limit that it exceeds.

    `quality` is a preset; with "own", `sampler` and `nfe` (evaluations of the guided velocity) are
    used. Image i has seed + i.
    """

    prompt: str
    negative_prompt: str = ""
    quality: str = "own"
    sampler: str = "auto"
    nfe: int = 16
    guidance: float = 2.0
    seed: int = 0
    count: int = 1

    def __post_init__(self):
        text(self.prompt, "prompt")
        number(self.guidance, "guidance", 0, MAX_GUIDANCE)
        whole(self.seed, "seed", 0, MAX_SEED)
        whole(self.nfe, "number of evaluations", 1, MAX_NFE)
        whole(self.count, "number of images", 1, MAX_COUNT)
        if self.negative_prompt:
            text(self.negative_prompt, "negative prompt")
        if self.quality not in (OWN, *QUALITIES):
            raise InvalidRequest("This quality is not on the list; please choose one that is.")
        if self.sampler not in samplers():
            raise InvalidRequest("This sampler is not on the list; please choose one that is.")
        if (least := self.solver.cost(1)) > self.nfe:
            raise InvalidRequest(
                f"The sampler {self.sampler} takes {least} evaluations or more; allow them."
            )

    @property
    def options(self) -> dict:
        """The options of `pipe(prompt)` that generate the request."""
        told = {"guidance_scale": self.guidance, "negative_prompt": self.negative_prompt or None}
        if self.quality != OWN:
            return told | {"quality": self.quality}
        return told | {"sampler": self.sampler, "num_inference_steps": self.steps}

    @property
    def solver(self) -> Solver:
        return SOLVERS[self.sampler]

    @property
    def steps(self) -> int:
        """The largest number of steps within the allowed evaluations."""
        fitting = (n for n in range(self.nfe, 0, -1) if self.solver.cost(n) <= self.nfe)
        return next(fitting)


def samplers() -> list[str]:
    """Returns solvers with a fixed number of evaluations that need only the noise."""
    names = [s.name for s in SOLVERS.values() if s.fixed]
    return [*FIRST, *sorted(set(names) - set(FIRST))]


def text(value, what: str) -> str:
    """Returns `value` stripped of blanks, if it is a text of 1 to MAX_TEXT characters."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise Missing(f"There is no {what} yet; please write one.")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise InvalidRequest(f"The {what} is not Unicode text; please write it again.")
    if len(value) > MAX_TEXT:
        raise InvalidRequest(f"The {what} is longer than {MAX_TEXT} characters; please shorten it.")
    return value.strip()


def number(value, what: str, low: float, high: float) -> float:
    """Returns `value`, if it is a number from `low` to `high`."""
    if not is_number(value) or not low <= value <= high:  # as for NaN
        raise InvalidRequest(f"The {what} must be from {low} to {high}.")
    return value


def whole(value, what: str, low: int, high: int) -> int:
    """Returns `value` as an int, if it is a whole number from `low` to `high`."""
    if number(value, what, low, high) != int(value):
        raise InvalidRequest(f"The {what} must be a whole number.")
    return int(value)


@contextmanager
def refusals(what: str) -> Iterator[None]:
    """A context in which the model reads a text; the visitor is told why it refuses one."""
    try:
        yield
    except InvalidRequest:
        raise
    except ValueError as error:
        raise InvalidRequest(f"The {what} is not accepted: {printable(error, 300)}.") from error


def turns(value, most: int) -> list[dict]:
    """Returns the last `most` messages of a conversation as the page keeps it."""
    found = [] if value is None else value
    if not isinstance(found, list) or not all(
        isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in found
    ):
        raise InvalidRequest("The conversation cannot be read; please begin a new one.")
    return found[-most:]


def square(image: Image.Image) -> Image.Image:
    """Returns the largest square in the middle of an image."""
    return ImageOps.fit(image, (min(image.size),) * 2)


def image(path: str | Path | None) -> Image.Image:
    """Returns an uploaded file as an upright RGB image of at most SIDE pixels per side.

    Its file size is checked before it is opened, and its dimensions before it is decoded.
    """
    if path is None:
        raise Missing("There is no image yet; please choose one.")
    try:
        if Path(path).stat().st_size > MAX_BYTES:
            raise InvalidRequest(
                f"The file is larger than {MAX_BYTES // 2**20} MB; please shrink it."
            )
        return _decoded(path)
    except InvalidRequest:
        raise
    except Image.DecompressionBombError as error:
        raise InvalidRequest(TOO_WIDE) from error
    except Exception as error:  # pillow raises whatever its decoders do
        raise InvalidRequest(
            f"This is not a complete image; please send one of {', '.join(FORMATS)}."
        ) from error


def _decoded(path: str | Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        found = Image.open(path, formats=FORMATS)
    with found:
        if found.width * found.height > MAX_PIXELS:
            raise InvalidRequest(TOO_WIDE)
        found.draft("RGB", (SIDE, SIDE))  # a JPEG is decoded small at once
        plain = images.to_rgb(found)
    plain.thumbnail((SIDE, SIDE))
    return plain
