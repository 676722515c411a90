"""Computes latents and teacher features of images, and fingerprints of how they were computed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn

from janusflow.data.feature_cache import FORMAT
from janusflow.data.samples import Sample
from janusflow.models import latents as coding
from janusflow.training.alignment.teachers import Encoder, View
from janusflow.utils import atomic_io, digests

BATCH = 16  # images encoded at once


@torch.no_grad()
def latents_of(vae: nn.Module, pixels: Tensor) -> Tensor:
    """Returns scaled mean latents of images (B, 3, S, S) in float32, as the model takes them."""
    return coding.encode(vae, pixels.to(next(vae.parameters(), pixels).device))


@torch.no_grad()
def features_of(teacher: Encoder, pixels: Tensor) -> Tensor:
    """Returns the teacher's features (B, n, D) of images (B, 3, S, S), on the teacher's device."""
    place = next(teacher.network.parameters()).device
    t = torch.ones(len(pixels), device=place)
    return teacher(View(t=t, pixel_values=pixels.to(place)))


@dataclass(frozen=True)
class Latents:
    """Adds latents to generation samples that lack them."""

    vae: nn.Module

    def __call__(self, samples: Sequence[Sample]) -> list[Sample]:
        found = list(samples)
        bare = [i for i, s in enumerate(found) if s.kind == "generation" and s.latents is None]
        for first in range(0, len(bare), BATCH):
            part = bare[first : first + BATCH]
            encoded = latents_of(self.vae, torch.cat([found[i].pixel_values for i in part])).cpu()
            for i, own in zip(part, encoded, strict=True):
                found[i] = replace(found[i], latents=own)
        return found


def made_with(vae: nn.Module, image_processor) -> dict:
    """Returns the latents' fingerprint: the encoder's weights and images' preparation."""
    config = {
        name: value
        for name, value in dict(vae.config).items()
        if not name.startswith("_") and isinstance(value, int | float | str | list | tuple | None)
    }
    return {
        "format": FORMAT,
        "latents": {"weights": weights_of(vae), **_plain(config)},
        "preparation": {"crop": "center", **_plain(asdict(image_processor))},
    }


def taught_by(name: str, teacher: Encoder, dtype: torch.dtype) -> dict:
    """Returns the fingerprint of features: the teacher, its weights and the stored dtype."""
    kept = str(dtype).removeprefix("torch.")
    found = {"teacher": name, "weights": weights_of(teacher.network), "dtype": kept}
    size = getattr(teacher.network, "size", None)
    return found | ({"size": size} if size else {})


def weights_of(network: nn.Module) -> str:
    """Returns the SHA-256 of a network's weights in their dtype; sharded weights are gathered."""
    state = {
        name: x.full_tensor() if hasattr(x, "full_tensor") else x
        for name, x in network.state_dict().items()
        if isinstance(x, Tensor)
    }
    return digests.of_tensors(atomic_io.on_cpu(state))[:32]


def _plain(found: Mapping) -> dict:
    """Returns the value as it is after a round trip through JSON."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()}
