"""Whose features a model is aligned with. A teacher turns what is known of a batch into features
(B, tokens, width); it is never trained, and it looks at clean pictures unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from janusflow.models.attention_capture import Heads, of_encoder
from janusflow.models.janusflow.configuration import VisionSizes
from janusflow.models.janusflow.vision import VisionEncoder
from janusflow.scenes.patches import COLOR_CLASSES, SHAPE_CLASSES, targets
from janusflow.training import losses

HiddenOf = Callable[[nn.Module, Tensor, Tensor, int], Tensor]


@dataclass(frozen=True, kw_only=True)
class View:
    """What is known of a batch of pictures in training; a teacher takes what it needs of it.

    `hidden_of(model, x, t, block)`: image tokens (B, n, D) after a block of a model that reads
    these samples' prompts, noisy latents x and times t. `uniform`: numbers in [0, 1) for teachers
    that draw.
    """

    t: Tensor  # (B,)
    noise: Tensor | None = None  # (B, c, h, w)
    data: Tensor | None = None  # (B, c, h, w), the scaled latents
    pixel_values: Tensor | None = None  # (B, 3, S, S) in [-1, 1]
    features: Tensor | None = None  # (B, n, D), of a cache
    objects: Sequence | None = None  # of scenes
    uniform: Tensor | None = None  # (B,)
    hidden_of: HiddenOf | None = None

    def need(self, *names: str) -> tuple:
        """These fields; ValueError for the first that is missing."""
        for name in names:
            if getattr(self, name) is None:
                raise ValueError(
                    f"the teacher needs {name!r} of each picture, which this data does not give; "
                    "choose another teacher or source"
                )
        return tuple(getattr(self, name) for name in names)


class Teacher(Protocol):
    width: int

    def __call__(self, view: View) -> Tensor: ...


@dataclass(frozen=True)
class Encoder:
    """A network from pixels (B, 3, S, S) in [-1, 1] to tokens, such as the own vision encoder."""

    network: nn.Module
    width: int

    def __call__(self, view: View) -> Tensor:
        (pixels,) = view.need("pixel_values")
        return self.network(pixels)

    def with_attention(self, view: View, count: int) -> tuple[Tensor, list[Heads]]:
        """Also queries and keys of the last `count` blocks; ValueError for an encoder without."""
        with of_encoder(self.network, count) as heads:
            return self(view), heads()


class TimmEncoder(nn.Module):
    """Any encoder of timm: pixels (B, 3, S, S) in [-1, 1] -> (B, tokens, width).

    Pictures are resized and normalised as the encoder was trained; class and register tokens are
    left out, maps (B, C, h, w) read as tokens. `weights`: a safetensors file, or None for fresh
    ones, or "hub" for timm's own, which need a network once.
    """

    def __init__(self, name: str, weights: str | Path | None = "hub"):
        import timm
        from timm.data import resolve_model_data_config

        super().__init__()
        self.network = timm.create_model(name, num_classes=0, **_source(name, weights))
        self.network.requires_grad_(False).eval()
        wanted = resolve_model_data_config(self.network)
        self.side = wanted["input_size"][-1]
        self.register_buffer("mean", torch.tensor(wanted["mean"]).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(wanted["std"]).view(3, 1, 1))
        self.width = self.network.num_features

    def forward(self, pixels: Tensor) -> Tensor:
        if pixels.shape[-1] != self.side:
            how = dict(mode="bicubic", antialias=True)
            pixels = nn.functional.interpolate(pixels, (self.side, self.side), **how)
        features = self.network.forward_features((pixels / 2 + 0.5 - self.mean) / self.std)
        if features.ndim == 4:
            last = getattr(self.network, "output_fmt", "NCHW") == "NHWC"
            return features.flatten(1, 2) if last else features.flatten(2).transpose(1, 2)
        return features[:, getattr(self.network, "num_prefix_tokens", 0) :]


def _source(name: str, weights: str | Path | None) -> dict:
    """Arguments of timm's `create_model`; ValueError for an unknown name or a missing file."""
    import timm

    if not timm.is_model(name.split(".")[0]):
        near = timm.list_models(f"*{name.split('_')[0]}*")[:3]
        raise ValueError(f"timm has no model {name!r}; it has {', '.join(near) or 'others'}")
    if weights in (None, "hub"):
        return {"pretrained": weights == "hub"}
    path = Path(weights)
    if path.suffix != ".safetensors" or not path.is_file():
        raise ValueError(f"weights of {name!r} are {str(path)!r}; expected a .safetensors file")
    # custom_load: some of timm's own weights are .npz archives, and it would read this as one
    overlay = {"file": str(path), "custom_load": False}
    return {"pretrained": True, "pretrained_cfg_overlay": overlay}


@dataclass(frozen=True)
class Average:
    """The moving average of the model itself, at a later block and a time nearer to the data, on
    the same noise. Jiang et al. 2025 (SRA): t' = min(t + u * cleaner, 1), u uniform.
    """

    model: nn.Module
    block: int
    cleaner: float
    width: int

    def __call__(self, view: View) -> Tensor:
        noise, data, uniform, hidden_of = view.need("noise", "data", "uniform", "hidden_of")
        t = (view.t + self.cleaner * uniform).clamp(max=1)
        return hidden_of(self.model, losses.interpolate(noise, data, t), t, self.block)


@dataclass(frozen=True)
class Cached:
    """Features that were computed once and lie with the sample."""

    width: int

    def __call__(self, view: View) -> Tensor:
        (features,) = view.need("features")
        if features.shape[-1] != self.width:
            raise ValueError(
                f"cached features are {features.shape[-1]} wide, expected {self.width}; compute "
                "them again for this teacher"
            )
        return features


class Oracle:
    """What really lies under each patch of a scene: one-hot shape and colour, with the background
    as one more of each. Nothing that is learnt can know more of these two.
    """

    classes = (SHAPE_CLASSES, COLOR_CLASSES)
    width = sum(classes)

    def __call__(self, view: View) -> Tensor:
        (scenes,) = view.need("objects")
        kinds = torch.from_numpy(np.stack([targets(o)[:, :2] for o in scenes])).long()
        both = [nn.functional.one_hot(kinds[..., i], n) for i, n in enumerate(self.classes)]
        return torch.cat(both, dim=-1).float().to(view.t.device)


def untrained(sizes: VisionSizes, seed: int = 0) -> VisionEncoder:
    """An encoder with fresh weights: features that depend on the picture but were never taught
    anything. The control of every teacher.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VisionEncoder(sizes).requires_grad_(False).eval()


TEACHERS = ("own", "ema", "cached", "oracle", "random")


def make(
    name: str,
    model: nn.Module,
    *,
    average: nn.Module | None = None,
    block: int | None = None,
    cleaner: float = 0.2,
    weights: str | Path | None = "hub",
    cached_width: int | None = None,
) -> Teacher:
    """The teacher of that name for a JanusFlow model; "timm:NAME" is any encoder of timm.

    `average` and `block` belong to "ema", `weights` to timm's, `cached_width` to "cached".
    ValueError for an unknown name, or what it needs and did not get.
    """
    sizes = model.config.vision
    if name == "own":
        return Encoder(model.vision_und_enc_model, sizes.width)
    if name == "random":
        fresh = untrained(sizes).to(next(model.vision_und_enc_model.parameters()).device)
        return Encoder(fresh, sizes.width)
    if name == "oracle":
        return Oracle()
    if name == "cached":
        return Cached(sizes.width if cached_width is None else cached_width)
    if name == "ema":
        if average is None or block is None:
            raise ValueError("the teacher 'ema' needs the averaged model and one of its blocks")
        return Average(average, block, cleaner, model.config.language_config.hidden_size)
    if name.startswith("timm:"):
        network = TimmEncoder(name.removeprefix("timm:"), weights)
        return Encoder(network, network.width)
    raise ValueError(f"no teacher named {name!r}; choose one of {', '.join(TEACHERS)}, timm:NAME")
