"""Uses a cache of latents and features in training, after checking that it fits."""

from collections.abc import Sequence
from pathlib import Path

import torch

from janusflow.data.feature_cache import AGAIN, Cache, CacheError, first_difference
from janusflow.data.preparation import Cached
from janusflow.data.readers import signature
from janusflow.training.alignment.teachers import CachedTeacher, Encoder
from janusflow.training.config import Settings
from janusflow.training.encoding import made_with, taught_by
from janusflow.training.trainer import Trainer


def find(settings: Settings, data: Path | Sequence[Path], vae, processor) -> Cached:
    """Returns the cache that the settings name, checked against the files, autoencoder and pixels.

    Features come from it if the run aligns with the teacher that made them and that teacher is
    fixed; otherwise images are decoded for the teacher. Raises CacheError if it is stale.
    """
    about = made_with(vae, processor.image_processor)
    cache = Cache.open(settings.data.cache, about, signature(data))
    if taught(settings) and _serves(settings, cache):
        return Cached(cache, ("latents", "features"))
    return Cached(cache, pixels=taught(settings))


def taught(settings: Settings) -> bool:
    """Returns whether a teacher looks at images."""
    align = settings.alignment
    looks = align is not None and align.teacher not in ("ema", "oracle", "cached")
    return looks and align.kind == "teacher" and align.weight > 0


def _serves(settings: Settings, cache: Cache) -> bool:
    name = settings.alignment.teacher
    learns = name == "own" and "vision_encoder" in settings.training.trainable
    return (cache.about.get("features") or {}).get("teacher") == name and not learns


def teach(trainer: Trainer, cached: Cached) -> None:
    """Replaces the teacher by cached features. Raises CacheError for other weights."""
    if "features" not in cached.names:
        return
    teacher = trainer.objective.aligner.teach[0]
    said = cached.cache.about["features"]
    wanted = taught_by(trainer.settings.alignment.teacher, teacher, getattr(torch, said["dtype"]))
    if wrong := first_difference(said, wanted):
        raise CacheError(
            f"the cache in {cached.cache.folder} is stale: features' {wrong}; {AGAIN}, to another "
            "folder"
        )
    assert isinstance(teacher, Encoder)
    trainer.objective.aligner.teach[0] = CachedTeacher(teacher.width)
