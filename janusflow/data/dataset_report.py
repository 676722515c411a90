"""Describes which data was read and which was skipped, and computes its fingerprint.

The description shows a wrong folder before a training starts; the fingerprint refuses to resume a
training with other data.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator

from janusflow.data import image_sizes
from janusflow.data.mixture import Mixture
from janusflow.data.records import Record, Records
from janusflow.data.samples import BrokenSample

TRIED = 20  # records, for one that can be read
NAMED = 10  # skipped files that are named one by one
LOOKED_AT = 256  # records of a source whose content counts, spread over it


def describe(mixture: Mixture) -> str:
    """Returns lines on each kind of sample: count, example, unusual sizes; and what is skipped."""
    lines = []
    for kind, blend in mixture.sources.items():
        count = sum(len(source) for source in blend.sources)
        lines.append(f"data: {count:,} {kind}, as {_example(blend.sources)}")
        lines += [
            f"data: {sum(map(len, one.sources)):,} of them in the shape {name}"
            for name, one in zip(
                getattr(blend, "names", ()), getattr(blend, "blends", ()), strict=True
            )
        ]
        if kind == "generation":
            lines += [f"data: {line}" for source in blend.sources for line in _sizes(source)]
    skipped = list(mixture.skipped.items())
    lines += [f"data: skipped {name}: {why}" for name, why in skipped[:NAMED]]
    rest = Counter(why for _, why in skipped[NAMED:])
    lines += [f"data: skipped {count:,} more: {why}" for why, count in rest.most_common()]
    return "\n".join(lines)


def _example(sources) -> str:
    why = "the first have no records"
    for record in _tried(sources):
        if isinstance(record, Record):
            return f"{record.name}: {_words(record)!r}"
        why = str(record)
    return f"nothing that can be read among the first ({why})"


def _sizes(source) -> Iterator[str]:
    """Yields what is unusual in the sizes of up to 256 images of a source."""
    processor = getattr(source, "processor", None)
    if processor is None:
        return
    side = processor.image_processor.image_size
    seen = (record for _, record in _spread(source.records, LOOKED_AT))
    whole = (record for record in seen if isinstance(record, Record))
    yield from image_sizes.unusual(whole, *(source.sides or (side, side)), source.min_side)


def _words(record: Record) -> str:
    text = record.text or " / ".join(message["content"] for message in record.messages)
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def meta(mixture: Mixture) -> dict[str, str]:
    """Returns what a checkpoint says of the data: the fingerprint, and whether it holds edits."""
    found = {"data": json.dumps(fingerprint(mixture))}
    return found | ({"edits": "true"} if has_edits(mixture) else {})


def has_edits(mixture: Mixture) -> bool:
    """Returns whether prompts of generation samples show an image, looking at a few of each
    source.
    """
    blend = mixture.sources.get("generation")
    tried = _tried(blend.sources if blend else ())
    return any(isinstance(record, Record) and record.shown for record in tried)


def _tried(sources) -> Iterator[Record | Exception]:
    """Yields a few records of each source, or why they cannot be read."""
    for records in (getattr(source, "records", None) for source in sources):
        if records is not None:
            yield from (record for _, record in _spread(records, TRIED))


def fingerprint(mixture: Mixture) -> dict[str, str]:
    """Returns, for each kind, the number of samples and a hash of up to 256 samples of each source.

    The samples are spread over the source. File names do not count, so folders may be moved;
    skipped files do not count either.
    """
    found = {}
    for kind, blend in mixture.sources.items():
        digest, count = hashlib.sha256(), 0
        for source in blend.sources:
            count += len(source)
            for number, record in _spread(getattr(source, "records", source), LOOKED_AT):
                digest.update(f"{number} ".encode())
                _add(digest, record)
        found[kind] = f"{count} {digest.hexdigest()[:16]}"
    return found


def _add(digest, record: Record | Exception) -> None:
    if not isinstance(record, Record):
        digest.update(type(record).__name__.encode())
        return
    if record.captions:
        digest.update(repr(record.captions).encode())
    digest.update(repr((record.text, [dict(message) for message in record.messages])).encode())
    for image in (*record.images, *record.shown):
        digest.update(image)


def _spread(records: Records, most: int) -> Iterator[tuple[int, Record | Exception]]:
    """Yields numbers and records, or why they cannot be read; of a stream only the first."""
    count = min(len(records), most)
    if getattr(records, "sequential", False):
        numbers = range(min(count, 1))
    else:
        numbers = sorted({i * len(records) // count for i in range(count)})
    for number in numbers:
        try:
            yield number, records[number]
        except (BrokenSample, OSError, ValueError) as error:
            yield number, error


def first_difference(found: dict[str, str], before: dict[str, str]) -> str | None:
    """Returns a sentence about two fingerprints' first difference, or None if they are equal."""
    for kind in {**before, **found}:
        ours, theirs = found.get(kind, "0").split(), before.get(kind, "0").split()
        if ours[0] != theirs[0]:
            return f"{theirs[0]} {kind} samples then, {ours[0]} now"
        if ours != theirs:
            return f"the {kind} samples have another content"
    return None
