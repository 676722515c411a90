"""Computes latents and teacher features of all generation images once and stores them on disk."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from janusflow.data.feature_cache import Cache, key_of
from janusflow.data.mixture import Tally
from janusflow.data.preparation import generation
from janusflow.data.readers import as_paths, find, signature
from janusflow.data.records import Records
from janusflow.data.samples import BrokenSample
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.janusflow.processing import JanusFlowProcessor
from janusflow.training import init_checkpoint
from janusflow.training.alignment.teachers import Encoder, make
from janusflow.training.beginning import flow_folder
from janusflow.training.encoding import BATCH, features_of, latents_of, made_with, taught_by
from janusflow.utils.devices import DTYPES, pick_device
from janusflow.utils.keywords import choice
from janusflow.utils.locked_dir import alone

SHARD_BYTES = 256 * 2**20
SHARD_IMAGES = 1024


@dataclass
class Encoders:
    """The autoencoder and teacher to apply; `dtype` is the dtype in which features are stored."""

    processor: JanusFlowProcessor
    vae: torch.nn.Module
    teacher: Encoder | None = None
    name: str = "none"
    dtype: torch.dtype = torch.float32

    @property
    def about(self) -> dict:
        """Returns the fingerprint of what they compute."""
        taught = self.teacher and taught_by(self.name, self.teacher, self.dtype)
        return made_with(self.vae, self.processor.image_processor) | {"features": taught}

    def __call__(self, pixels: Tensor) -> list[dict[str, Tensor]]:
        """Images (B, 3, S, S) -> the tensors to store for each image."""
        found = {"latents": latents_of(self.vae, pixels)}
        if self.teacher is not None:
            found["features"] = features_of(self.teacher, pixels).to(self.dtype)
        return [{name: x[i].cpu() for name, x in found.items()} for i in range(len(pixels))]


def load(
    model: str,
    vae: str | None = None,
    teacher: str = "own",
    weights: str | Path | None = "hub",
    device: str = "auto",
    dtype: str = "float32",
    size: int | None = None,
) -> Encoders:
    """Loads the encoders of a model; `teacher` is "own", "timm:NAME", or "none" for latents alone.

    `weights` and `size` apply to a timm teacher, as in teachers.TimmTeacherNetwork.
    """
    if teacher not in ("own", "none") and not teacher.startswith("timm:"):
        raise ValueError(f"--teacher is {teacher!r}; choose own, none or timm:NAME")
    choice("--dtype is", dtype, DTYPES)
    folder, place = flow_folder(model), pick_device(device)
    found = Encoders(
        JanusFlowProcessor.from_pretrained(folder),
        init_checkpoint.autoencoder_of(folder, vae).to(place),
    )
    if teacher != "none":
        whole = JanusFlowModel.from_pretrained(folder, dtype=torch.float32).eval()
        found.teacher, found.name = make(teacher, whole, weights=weights, size=size), teacher
        found.teacher.network.to(place)
        found.dtype = DTYPES[dtype]
    return found


@dataclass
class Summary:
    """How many images were computed now, existed already, or could not be read."""

    computed: int = 0
    known: int = 0
    tally: Tally = field(default_factory=Tally)

    def __str__(self) -> str:
        broken = f"\n{self.tally.report()}" if self.tally.broken else ""
        return (
            f"{self.computed} images computed, {self.known} known, "
            f"{len(self.tally.broken)} unreadable{broken}"
        )


def precompute(
    data: Path | Sequence[Path], encoders: Encoders, out: Path, limit: int = 100
) -> Summary:
    """Fills a cache with every generation image in these files, keeping existing entries.

    An interrupted run loses at most one shard. Raises ValueError for data without such images, or
    with more than `limit` unreadable ones.
    """
    sources = [records for path in as_paths(data) for k, records in find(path) if k == "generation"]
    if not sources:
        raise ValueError("the data has no images with captions; there is nothing to compute")
    with alone(out):
        for part in out.glob("*.part"):
            part.unlink()
        cache, summary = Cache.create(out, encoders.about), Summary(tally=Tally(limit))
        before = signature(data)
        fresh = _fresh(sources, encoders.processor, cache, summary)
        _fill(cache, encoders, fresh)
        cache.declare(before)
    return summary


def _fill(cache: Cache, encoders: Encoders, fresh: Iterator[tuple[str, Tensor]]) -> None:
    held, size = {}, 0
    while batch := dict(islice(fresh, BATCH)):
        for key, own in zip(batch, encoders(torch.cat(list(batch.values()))), strict=True):
            held[key] = own
            size += sum(x.nbytes for x in own.values())
        if size >= SHARD_BYTES or len(held) >= SHARD_IMAGES:
            cache.add(held)
            held, size = {}, 0
    if held:
        cache.add(held)


def _fresh(
    sources: list[Records], processor: JanusFlowProcessor, cache: Cache, summary: Summary
) -> Iterator[tuple[str, Tensor]]:
    """Yields keys and pixels (1, 3, S, S) of images that the cache lacks, read one batch ahead."""
    seen: set[str] = set()

    def read(records: Records, index: int):
        try:
            record = records[index]
            key = key_of(record.images[0])
            if key in cache or key in seen:
                return None
            return key, generation(processor, record).pixel_values
        except BrokenSample as broken:
            return broken
        except (ValueError, TypeError) as error:
            return BrokenSample(record.name, str(error))

    total = sum(map(len, sources))
    with ThreadPoolExecutor() as pool, tqdm(total=total, desc="precompute", disable=None) as bar:
        for records in sources:
            for first in range(0, len(records), BATCH):
                part = range(first, min(first + BATCH, len(records)))
                for found in pool.map(read, [records] * len(part), part):
                    bar.update()
                    if isinstance(found, BrokenSample):
                        summary.tally.add(found)
                    elif found is None or found[0] in seen:
                        summary.known += 1
                    else:
                        seen.add(found[0])
                        summary.computed += 1
                        yield found
