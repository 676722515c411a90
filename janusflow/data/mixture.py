"""Batches drawn from several sources; a batch depends on (seed, step, rank) alone."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from zlib import crc32

from janusflow.data.drawing import Scheduled, share
from janusflow.data.permutation import mix, permuted, shuffled
from janusflow.data.samples import KINDS, BrokenSample, Sample, Source, take

SLOTS = 4096  # weights hold exactly in every so many samples
ATTEMPTS = 64  # replacements tried for one broken sample


@dataclass(frozen=True)
class Blend:
    """Several sources with weights, drawn in an endless shuffled order.

    Of every SLOTS consecutive positions each source gets its share. Raises ValueError for weights
    that are not positive.
    """

    sources: Sequence[Source]
    weights: Sequence[float]

    def __post_init__(self):
        if not self.sources or len(self.sources) != len(self.weights):
            raise ValueError(
                f"{len(self.sources)} sources came with {len(self.weights)} weights; give one "
                "weight for each source"
            )
        if not all(0 < weight < float("inf") for weight in self.weights):
            raise ValueError(f"weights are {list(self.weights)}; expected numbers above 0")
        empty = [i for i, source in enumerate(self.sources) if len(source) == 0]
        if empty:
            raise ValueError(f"source {empty[0]} has no samples; leave it out")

    @property
    def ends(self) -> list[int]:
        """The slot at which each source's share ends; every source has at least one slot."""
        total, spare = sum(self.weights), SLOTS - len(self.sources)
        done, ends = 0.0, []
        for number, weight in enumerate(self.weights, 1):
            done += weight
            ends.append(number + round(spare * done / total))
        return ends

    def locate(self, position: int, seed: int) -> tuple[int, int]:
        """Returns (source, sample) at this position of the order."""
        if len(self.sources) == 1:
            return 0, self._index(0, position, seed)
        run, slot = divmod(position, SLOTS)
        place, slot = slot, permuted(slot, SLOTS, seed, run)
        which = next(i for i, end in enumerate(self.ends) if slot < end)
        start, end = self.ends[which - 1] if which else 0, self.ends[which]
        number = slot - start
        if getattr(self.sources[which], "sequential", False):  # in the order of the run instead
            number = sum(start <= other < end for other in slots(seed, run)[:place])
        return which, self._index(which, run * (end - start) + number, seed)

    def places(
        self,
        step: int,  # noqa: ARG002 (buckets go by it)
        first: int,
        own: Sequence[int],
        count: int,  # noqa: ARG002
        seed: int,
    ) -> list[tuple[int, int]]:
        """Returns (source, sample) for the numbers `own` of a step that starts at `first`."""
        return [self.locate(first + i, seed) for i in own]

    def _index(self, which: int, position: int, seed: int) -> int:
        source = self.sources[which]
        if getattr(source, "sequential", False):
            return position
        return shuffled(position, len(source), seed, which)

    def instead(self, which: int, index: int, seed: int, trial: int) -> int:
        """Returns another sample of the same source, to replace a broken one."""
        source = self.sources[which]
        if getattr(source, "sequential", False):
            return index + trial
        return mix(seed, which, index, trial) % len(source)


@lru_cache(maxsize=64)
def slots(seed: int, run: int) -> tuple[int, ...]:
    """Returns the order in which the positions of one run of SLOTS take their slots."""
    return tuple(permuted(place, SLOTS, seed, run) for place in range(SLOTS))


@dataclass
class Tally:
    """Names of broken samples with the reasons. More than `limit` of them stop the run."""

    limit: int = 100
    broken: dict[str, str] = field(default_factory=dict)

    def add(self, found: BrokenSample) -> None:
        """Records a broken sample, once a name, and warns. Raises ValueError beyond `limit`."""
        if found.name in self.broken:
            return
        self.broken[found.name] = found.why
        if len(self.broken) > self.limit:
            raise ValueError(
                f"{len(self.broken)} samples cannot be read, {self.limit} are allowed; the last: "
                f"{found}; correct the data or raise the limit"
            )
        warnings.warn(f"{found}; another sample stands in", stacklevel=2)

    def report(self) -> str:
        """Returns one line per broken sample."""
        return "\n".join(f"{name}: {why}" for name, why in self.broken.items())


@dataclass
class Mixture(Scheduled):
    """Sources by kind of sample.

    `draw` is a pure function of its arguments, the seed and the sources.

    `encode` (samples -> samples) is applied once to each drawn batch, for example to add latents. A
    broken sample is replaced by another of its source, always the same one, and recorded in
    `tally`, which each process has for itself.
    """

    sources: Mapping[str, Source | Blend]
    seed: int = 0
    encode: Callable[[list[Sample]], list[Sample]] | None = None
    tally: Tally = field(default_factory=Tally)
    skipped: Mapping[str, str] = field(default_factory=dict)  # what of the data is not read, why

    def __post_init__(self):
        unknown = set(self.sources) - set(KINDS)
        if unknown:
            raise ValueError(
                f"no kind of sample named {unknown.pop()!r}; choose from {', '.join(KINDS)}"
            )
        self.sources = {
            kind: source if hasattr(source, "places") else Blend([source], [1.0])
            for kind, source in self.sources.items()
        }

    def draw(
        self,
        step: int,
        rank: int = 0,
        world: int = 1,
        counts: Mapping[str, int] | None = None,
        start: Mapping[str, int] | None = None,
    ) -> list[Sample]:
        """Returns this rank's part of the batch of a step, kind by kind in the order of KINDS.

        `counts` gives the samples of each kind in the whole batch, by default one each. Of n
        samples, rank r gets those from r n // world to (r + 1) n // world. `start` gives how many
        of each kind the earlier steps have drawn; the default is step times count, which is right
        if counts never change. Every sample of a source is drawn once before any is drawn twice.
        Raises ValueError for a kind without a source.
        """
        counts = dict.fromkeys(self.sources, 1) if counts is None else counts
        drawn = []
        for kind in KINDS:
            if count := counts.get(kind, 0):
                first = step * count if start is None else start.get(kind, 0)
                drawn += self._kind(kind, step, first, share(count, rank, world), count)
        return self.encode(drawn) if self.encode and drawn else drawn

    def _kind(self, kind: str, step: int, first: int, own: range, count: int) -> list[Sample]:
        if kind not in self.sources:
            raise ValueError(
                f"the mixture asks for {kind}, the data has {', '.join(self.sources)}; add a "
                "source or set its share to 0"
            )
        blend, seed = self.sources[kind], mix(self.seed_at(step), crc32(kind.encode()))
        found: list = [None] * len(own)
        places = blend.places(step, first, own, count, seed)
        for which, source in enumerate(blend.sources):
            mine = [i for i, place in enumerate(places) if place[0] == which]
            keys = [mix(seed, first + own[i]) for i in mine]
            samples = take(source, [places[i][1] for i in mine], keys) if mine else []
            for i, key, sample in zip(mine, keys, samples, strict=True):
                found[i] = self._whole(blend, *places[i], key, sample, seed)
        return found

    def _whole(self, blend: Blend, which: int, index: int, key: int, sample, seed: int) -> Sample:
        """Returns the sample, or its replacement if it is broken."""
        for trial in range(1, ATTEMPTS + 1):
            if isinstance(sample, Sample):
                return sample
            self.tally.add(sample)
            other = blend.instead(which, index, seed, trial)
            sample = take(blend.sources[which], [other], [key])[0]
        raise ValueError(
            f"{ATTEMPTS} samples in a row cannot be read, the last: {sample}; check the data"
        )
