"""Teachers of representation alignment: they map a batch to features (B, tokens, width).

A teacher is never trained, and it sees clean images unless its description says otherwise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from janusflow.models.attention_capture import QueriesKeys, of_encoder
from janusflow.models.janusflow.configuration import VisionSizes
from janusflow.models.janusflow.vision import VisionEncoder
from janusflow.scenes.patches import COLOR_CLASSES, SHAPE_CLASSES, targets
from janusflow.training import losses
from janusflow.utils.keywords import choice

HiddenOf = Callable[[nn.Module, Tensor, Tensor, int], Tensor]


@dataclass(frozen=True, kw_only=True)
class View:
    """What a teacher may use of a training batch.

    `hidden_of(model, x, t, block)` returns image tokens (B, n, D) after a block of a model that
    reads these samples' prompts, noisy latents x and times t. `uniform` are random numbers in [0,
    1).
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
        """Returns these fields. Raises ValueError for the first that is missing."""
        for name in names:
            if getattr(self, name) is None:
                raise ValueError(
                    f"the teacher needs {name!r} of each image, and this data has none; choose "
                    "another teacher or other data"
                )
        return tuple(getattr(self, name) for name in names)


class Teacher(Protocol):
    width: int

    def __call__(self, view: View) -> Tensor: ...


@dataclass(frozen=True)
class Encoder:
    """A teacher of pixels (B, 3, S, S) in [-1, 1], such as the model's own vision encoder."""

    network: nn.Module
    width: int

    def __call__(self, view: View) -> Tensor:
        (pixels,) = view.need("pixel_values")
        return self.network(pixels)

    def with_attention(self, view: View, count: int) -> tuple[Tensor, list[QueriesKeys]]:
        """Also returns queries and keys of the last `count` blocks. Raises ValueError without."""
        with of_encoder(self.network, count) as heads:
            return self(view), heads()


class TimmTeacherNetwork(nn.Module):
    """Any encoder of timm: pixels (B, 3, S, S) in [-1, 1] -> (B, tokens, width).

    Images are resized and normalised as in the encoder's training; class and register tokens are
    dropped, and feature maps (B, C, h, w) become tokens. `weights` is a safetensors file, None for
    random weights, or "hub" for timm's own, which need a download once. `size` is the side in
    pixels at which it sees images, by default its own; DINOv2 has 1,369 tokens at its own 518, and
    256 at 224.
    """

    def __init__(self, name: str, weights: str | Path | None = "hub", size: int | None = None):
        from timm.data import resolve_model_data_config

        super().__init__()
        self.network = _created(name, size, num_classes=0, **_source(name, weights))
        self.network.requires_grad_(False).eval()
        wanted = resolve_model_data_config(self.network)
        self.size, self.side = size, size or wanted["input_size"][-1]
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


def _created(name: str, size: int | None, **options) -> nn.Module:
    """Builds timm's network; position embeddings of a fixed number are resampled for `size`."""
    import timm

    if size is None:
        return timm.create_model(name, **options)
    try:
        return timm.create_model(name, img_size=size, **options)
    except TypeError:  # a network of convolutions takes any
        return timm.create_model(name, **options)
    except AssertionError as error:
        raise ValueError(
            f"alignment.teacher_size {size} does not fit {name!r} ({error}); choose another size"
        ) from error


def _source(name: str, weights: str | Path | None) -> dict:
    """Returns the arguments of timm's `create_model`. Raises ValueError for a missing one."""
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
    """The moving average of the model itself, at a later block and at a less noisy time with the
    same noise.

    Jiang et al. 2025 (SRA): t' = min(t + u * cleaner, 1), u uniform.
    """

    model: nn.Module
    block: int
    cleaner: float
    width: int
    on_students_grid: ClassVar[bool] = True  # whatever the image's shape

    def __call__(self, view: View) -> Tensor:
        noise, data, uniform, hidden_of = view.need("noise", "data", "uniform", "hidden_of")
        t = (view.t + self.cleaner * uniform).clamp(max=1)
        return hidden_of(self.model, losses.interpolate(noise, data, t), t, self.block)


@dataclass(frozen=True)
class CachedTeacher:
    """Features that were computed in advance and are stored with the sample."""

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
    """The true shape and colour under each patch of a scene, one-hot, with the background as one
    more of each.

    No learned encoder can know more about these two.
    """

    classes = (SHAPE_CLASSES, COLOR_CLASSES)
    width = sum(classes)

    def __call__(self, view: View) -> Tensor:
        (scenes,) = view.need("objects")
        kinds = torch.from_numpy(np.stack([targets(o)[:, :2] for o in scenes])).long()
        both = [nn.functional.one_hot(kinds[..., i], n) for i, n in enumerate(self.classes)]
        return torch.cat(both, dim=-1).float().to(view.t.device)


def untrained(sizes: VisionSizes) -> VisionEncoder:
    """Returns an encoder with random weights, the control for every teacher."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VisionEncoder(sizes).requires_grad_(False).eval()


@dataclass(frozen=True, kw_only=True)
class TeacherArguments:
    """The arguments available when a teacher is made; it takes those it needs.

    `argument` is the part of its name after the colon, as NAME in "timm:NAME".
    """

    model: nn.Module  # that is trained
    argument: str | None = None
    average: nn.Module | None = None  # of the model, for the teacher "ema"
    block: int | None = None  # of it
    cleaner: float = 0.2
    weights: str | Path | None = "hub"  # of an encoder from elsewhere
    size: int | None = None  # pixels that it sees images at
    cached_width: int | None = None


Maker = Callable[[TeacherArguments], Teacher]
TEACHERS: dict[str, Maker] = {}


def teacher(make: Maker) -> Maker:
    """A decorator: registers a teacher's factory for `alignment.teacher=NAME`, or NAME:ARGUMENT."""
    TEACHERS[make.__name__.removesuffix("_")] = make
    return make


@teacher
def own(wanted: TeacherArguments) -> Teacher:
    """The model's own vision encoder."""
    return Encoder(wanted.model.vision_und_enc_model, wanted.model.config.vision.width)


@teacher
def random(wanted: TeacherArguments) -> Teacher:
    """The model's vision encoder with random weights."""
    sizes = wanted.model.config.vision
    place = next(wanted.model.vision_und_enc_model.parameters()).device
    return Encoder(untrained(sizes).to(place), sizes.width)


@teacher
def oracle(_: TeacherArguments) -> Teacher:
    """The true shape and colour under each patch of a scene."""
    return Oracle()


@teacher
def cached(wanted: TeacherArguments) -> Teacher:
    """Features that `janusflow precompute` stored with the data."""
    width = wanted.model.config.vision.width
    return CachedTeacher(width if wanted.cached_width is None else wanted.cached_width)


@teacher
def ema(wanted: TeacherArguments) -> Teacher:
    """The exponential moving average (EMA) of the model in training."""
    if wanted.average is None or wanted.block is None:
        raise ValueError("the teacher 'ema' got no averaged model or no block; give both")
    width = wanted.model.config.language_config.hidden_size
    return Average(wanted.average, wanted.block, wanted.cleaner, width)


@teacher
def timm_(wanted: TeacherArguments) -> Teacher:
    """Any encoder of timm, as in timm:vit_base_patch14_dinov2."""
    if not wanted.argument:
        raise ValueError(
            "the teacher 'timm' got no network's name; give one, as timm:vit_base_patch16_224"
        )
    network = TimmTeacherNetwork(wanted.argument, wanted.weights, wanted.size)
    return Encoder(network, network.width)


def find(name: str) -> tuple[Maker, str | None]:
    """Returns a teacher's factory and its name's argument, or raises ValueError."""
    first, colon, argument = name.partition(":")
    choice("no teacher named", name if colon and not argument else first, TEACHERS, ":NAME")
    return TEACHERS[first], argument or None


def make(name: str, model: nn.Module, **options) -> Teacher:
    """Returns the teacher of that name for a JanusFlow model.

    `options` are fields of `TeacherArguments`. Raises ValueError for an unknown name or a missing
    option.
    """
    maker, argument = find(name)
    return maker(TeacherArguments(model=model, argument=argument, **options))
