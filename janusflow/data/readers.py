"""Opens the paths of `--data`: files and folders of any format, as sources by kind and as a
mixture.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from janusflow.data import buckets
from janusflow.data.folders import files_of, open_folder, open_text
from janusflow.data.json_rows import open_json
from janusflow.data.jsonl import open_lines
from janusflow.data.mixture import Blend, Mixture, Tally
from janusflow.data.parquet import open_tables
from janusflow.data.preparation import Cached, Prepared
from janusflow.data.read_options import Data
from janusflow.data.records import Records
from janusflow.data.sample_files import IMAGE_SUFFIXES, READERS, Scan, Subset, fetch, reader
from janusflow.data.samples import KINDS
from janusflow.data.shards import open_shards, refuse_compressed
from janusflow.models.janusflow.processing import JanusFlowProcessor

__all__ = ["as_paths", "fetch", "find", "open_data", "reader", "scan", "signature"]

MEDIA = {*IMAGE_SUFFIXES, ".jsonl", ".parquet", ".tar"}
SINGLE = {
    ".jsonl": lambda path, options, _: open_lines(path, options.ignore),
    ".json": lambda path, options, _: open_json(path, options.ignore),
    ".parquet": lambda path, options, seed: open_tables([path], options, seed),
    ".tar": lambda path, options, _: open_shards([path], options.ignore),
    ".txt": lambda path, *_: open_text(path),
}


def scan(
    path: Path, options: Data | None = None, seed: int = 0, exclude: Sequence[Path] = ()
) -> Scan:
    """Returns the sources in a file or folder and what is skipped; folders in `exclude` are
    ignored.

    Raises ValueError if there is nothing to learn from, and for a row that is not understood.
    """
    path, options = Path(path), options or Data()
    if path.is_dir():
        return open_folder(path, options, seed, exclude)
    if path.is_file():
        refuse_compressed(path)
    if path.is_file() and path.suffix in READERS:
        return READERS[path.suffix](path)
    if not path.is_file() or path.suffix not in SINGLE:
        forms = ", ".join([*SINGLE, *READERS])
        raise ValueError(f"{str(path)!r} is neither a folder nor a {forms} file; check --data")
    found = SINGLE[path.suffix](path, options, seed)
    if not found.sources:
        why = "".join(f"; {reason}" for reason in list(found.skipped.values())[:1])
        raise ValueError(f"{str(path)!r} holds nothing to learn from{why}; check --data")
    return found


def find(path: Path, options: Data | None = None, seed: int = 0) -> list[tuple[str, Records]]:
    """Returns (kind, records) of a file or a folder; it raises what `scan` raises."""
    return scan(path, options, seed).sources


def open_data(
    paths: Path | Sequence[Path],
    processor: JanusFlowProcessor,
    encode=None,
    seed: int = 0,
    limit: int = 100,
    options: Data | None = None,
    cached: Cached | None = None,
    exclude: Sequence[Path] = (),
    unit: int = 16,
) -> Mixture:
    """Opens the paths of `--data` as a mixture.

    Sources of one kind are blended by their lengths, or by the weights that `options` gives to the
    paths. `unit` is the pixels per side of one image token, of which the shapes of
    `options.buckets` must be multiples. Raises ValueError otherwise.
    """
    options, paths = options or Data(), as_paths(paths)
    if options.weights and len(options.weights) != len(paths):
        raise ValueError(
            f"data.weights has {len(options.weights)} numbers for {len(paths)} --data; give as many"
        )
    by_kind: dict[str, list[tuple[Prepared, float]]] = {kind: [] for kind in KINDS}
    skipped: dict[str, str] = {}
    for path, weight in zip(paths, options.weights or [None] * len(paths), strict=True):
        found = scan(path, options, seed, exclude)
        skipped |= found.skipped
        for kind, records in found.sources:
            source = Prepared(
                records,
                kind,
                processor,
                centered=options.centered,
                cached=cached,
                min_side=options.min_side,
            )
            whole = sum(len(other) for name, other in found.sources if name == kind)
            share = len(records) * (1 if weight is None else weight / whole)
            by_kind[kind].append((source, float(share)))
    blends = {kind: Blend(*zip(*own, strict=True)) for kind, own in by_kind.items() if own}
    if options.buckets and "generation" in blends:
        side = processor.image_processor.image_size
        wanted = buckets.shapes(options.buckets, side, unit)
        blends["generation"] = _bucketed(by_kind["generation"], wanted)
    return Mixture(blends, seed=seed, encode=encode, tally=Tally(limit), skipped=skipped)


def _bucketed(sources: Sequence[tuple[Prepared, float]], wanted: dict) -> buckets.Buckets:
    """Returns the images of the sources as one blend for each shape that has some."""
    found: dict[str, list[tuple[Prepared, float]]] = {name: [] for name in wanted}
    for source, weight in sources:
        for name, numbers in buckets.divided(source.records, wanted).items():
            own = replace(source, records=Subset(source.records, numbers), sides=wanted[name])
            found[name].append((own, weight * len(numbers) / len(source)))
    kept = {name: own for name, own in found.items() if own}
    return buckets.Buckets([Blend(*zip(*own, strict=True)) for own in kept.values()], list(kept))


def as_paths(paths: Path | str | Sequence[Path]) -> list[Path]:
    return [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]


def signature(paths: Path | Sequence[Path]) -> str:
    """Returns a hash of names and sizes of files that may hold images; folders may be moved."""
    found = hashlib.sha256()
    for path in as_paths(paths):
        files = files_of(path) if path.is_dir() else [path]
        for file in files:
            if file.suffix.lower() in MEDIA and file.is_file():
                name = file.relative_to(path if path.is_dir() else path.parent).as_posix()
                found.update(json.dumps([name, file.stat().st_size]).encode())
    return found.hexdigest()
