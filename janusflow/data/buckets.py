"""Aspect-ratio buckets: images keep their shape, and all images of a step have the same shape.

Each image is assigned to the listed shape whose aspect ratio is nearest to its own; each shape gets
as many steps as its share of the images. NovelAI 2022, and SDXL, arXiv 2307.01952, section 2.3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from janusflow.data.image_sizes import size_of
from janusflow.data.mixture import SLOTS, Blend, slots
from janusflow.data.permutation import permuted
from janusflow.data.records import Records
from janusflow.data.samples import BrokenSample, Source


@dataclass(frozen=True)
class Buckets:
    """A blend of sources for each shape; a step draws from one, the same in every process."""

    blends: Sequence[Blend]
    names: Sequence[str] = ()  # of the shapes, for reports

    @cached_property
    def sources(self) -> list[Source]:
        return [source for blend in self.blends for source in blend.sources]

    @cached_property
    def steps(self) -> Blend:
        """A blend whose samples are the steps: it gives the shape of each step."""
        weights = [float(sum(blend.weights)) for blend in self.blends]
        return Blend([range(1)] * len(self.blends), weights)

    def places(
        self,
        step: int,
        first: int,  # noqa: ARG002 (a step's place among those of its shape says it)
        own: Sequence[int],
        count: int,
        seed: int,
    ) -> list[tuple[int, int]]:
        """Returns (source, sample) for the numbers `own` out of the step's `count` samples."""
        run, place = divmod(step, SLOTS)
        slot = permuted(place, SLOTS, seed, run)
        which = next(i for i, end in enumerate(self.steps.ends) if slot < end)
        start = self.steps.ends[which - 1] if which else 0
        end = self.steps.ends[which]
        before = run * (end - start) + sum(start <= s < end for s in slots(seed, run)[:place])
        blend = self.blends[which]
        skipped = sum(len(other.sources) for other in self.blends[:which])
        found = [blend.locate(before * count + i, seed) for i in own]
        return [(skipped + source, index) for source, index in found]

    def instead(self, which: int, index: int, seed: int, trial: int) -> int:
        """Returns another sample of the same source, to replace a broken one."""
        for blend in self.blends:
            if which < len(blend.sources):
                return blend.instead(which, index, seed, trial)
            which -= len(blend.sources)
        raise IndexError(which)


def shapes(text: str, side: int, unit: int) -> dict[str, tuple[int, int]]:
    """Parses aspect ratios such as "1:1 4:3", width first, to (height, width) in pixels.

    Each shape has about side^2 pixels and sides that are multiples of `unit`. Raises ValueError for
    anything but ratios of two numbers.
    """
    found = {}
    for name in text.split():
        parts = name.split(":")
        if len(parts) != 2 or not all(part.isdecimal() and int(part) for part in parts):
            raise ValueError(
                f"data.buckets holds {name!r:.40}; expected aspect ratios such as 1:1 4:3 3:4"
            )
        ratio = math.sqrt(int(parts[0]) / int(parts[1]))
        height, width = (max(1, round(side * r / unit)) * unit for r in (1 / ratio, ratio))
        found[name] = (height, width)
    if not found:
        raise ValueError("data.buckets is empty; expected aspect ratios such as 1:1 4:3 3:4")
    return found


def divided(records: Records, wanted: dict[str, tuple[int, int]]) -> dict[str, list[int]]:
    """Returns the numbers of the records that are nearest to each shape; unreadable records go to
    the first.

    Raises ValueError for a stream, whose records have no numbers.
    """
    if getattr(records, "sequential", False):
        raise ValueError("data.buckets needs to look at all images first; set data.streaming=false")
    found: dict[str, list[int]] = {name: [] for name in wanted}
    logs = {name: math.log(width / height) for name, (height, width) in wanted.items()}
    for number in range(len(records)):
        ratio = _ratio(records, number)
        name = next(iter(wanted))
        if ratio is not None:
            name = min(logs, key=lambda each: abs(logs[each] - math.log(ratio)))
        found[name].append(number)
    return {name: numbers for name, numbers in found.items() if numbers}


def _ratio(records: Records, number: int) -> float | None:
    """Returns width / height of an image, from its header."""
    try:
        size = size_of(records[number].images[0])
    except (BrokenSample, OSError, ValueError):
        return None
    return None if size is None else size[0] / size[1]
