"""Conversion between pixels and latents by a pipeline's autoencoder, with its sizes and memory
limits.
"""

import warnings
from dataclasses import replace

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn

from janusflow.models import latents as coding
from janusflow.models.autoencoder_loading import vae_dtype
from janusflow.pipelines import few_step, memory
from janusflow.pipelines.call_options import check_output_type
from janusflow.pipelines.generators import Generators, generators, warn_unused
from janusflow.utils import finite, images
from janusflow.utils.keywords import renamed
from janusflow.utils.limits import whole
from samplers.fields import widest


class Coding:
    """A mixin of pipelines with a `model` and a `vae`."""

    _decoding = memory.DecodingPolicy()

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent along each side."""
        return coding.pixels_per_latent(self._autoencoder)

    @property
    def default_size(self) -> int:
        """The side in pixels of the images that the model was trained for."""
        return self.model.config.vision.image_size

    @property
    def _autoencoder(self) -> nn.Module:
        if self.vae is None:
            raise ValueError(
                "the pipeline holds no vae/, which images need; name the autoencoder, for "
                "JanusFlow-1.3B vae='stabilityai/sdxl-vae'"
            )
        return self.vae

    def _cast(self, dtype: torch.dtype) -> None:
        self.model.to(dtype)
        if self.vae is not None:
            self.vae.to(vae_dtype(dtype))

    def prepare_latents(
        self,
        count: int,
        height: int | None = None,
        width: int | None = None,
        generator: Generators = None,
        latents: Tensor | np.ndarray | None = None,
        seed: int | list[int] | None = None,
    ) -> Tensor:
        """Returns noise (count, channels, height / 8, width / 8) in float32 on the device.

        It is drawn from `generator` or `seed`, as in `pipe(prompt)`.
        """
        device, factor = self._execution_device, self.vae_scale_factor
        count = whole(count, "count")
        if latents is not None:
            warn_unused(generator, seed, "latents are the noise; leave it out", stacklevel=3)
            return self._own_latents(count, height, width, latents).to(device)
        height, width = (self.default_size if x is None else x for x in (height, width))
        self._check_size(height, width)
        channels = self.model.config.generation.latent_channels
        shape = (count, channels, height // factor, width // factor)
        generator = generators(generator, seed, count)
        return randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)

    def _own_latents(self, count: int, height, width, latents: Tensor | np.ndarray) -> Tensor:
        """Returns a copy of given latents in float32 or wider.

        Raises ValueError for another shape, and FloatingPointError for NaN and infinity.
        """
        channels = self.model.config.generation.latent_channels
        latents = _tensor(latents, "latents")
        if not latents.is_floating_point():
            raise TypeError(f"latents are {latents.dtype}; expected noise, floating-point numbers")
        if latents.ndim != 4 or latents.shape[:2] != (count, channels):
            raise ValueError(
                f"latents have shape {tuple(latents.shape)}; expected ({count}, {channels}, "
                "height, width)"
            )
        sides = (side * self.vae_scale_factor for side in latents.shape[2:])
        self._check_size(*sides, given=(height, width))
        if not bool(latents.isfinite().all()):
            raise FloatingPointError(
                "the starting state holds NaN or infinity; give latents that are finite"
            )
        wide = widest(self._execution_device) if latents.dtype == torch.float64 else torch.float32
        return latents.to(wide, copy=True)

    @property
    def _unit(self) -> int:
        """Returns the pixels per token along each side."""
        return self.vae_scale_factor * self.model.config.generation.patch

    def check_sides(self, height: int, width: int) -> None:
        """Raises ValueError for sides that are not multiples of the pixels per token."""
        memory.check_sides(height, width, self._unit)

    def _check_size(self, height: int, width: int, given=(None, None)) -> None:
        self.check_sides(height, width)
        tokens, most = height * width // self._unit**2, self.positions - 1
        if tokens > most:
            side = int(most**0.5) * self._unit
            raise ValueError(
                f"an image of {height} x {width} pixels is {tokens:,} tokens, and the language "
                f"model has {self.positions:,} positions; make it smaller, such as {side} x {side}"
            )
        for asked, side in zip(given, (height, width), strict=True):
            if asked is not None and asked != side:
                raise ValueError(
                    f"the latents are for {height} x {width} pixels, and height and width ask for "
                    f"{given}; leave height and width out"
                )
        if (height, width) != (self.default_size,) * 2:
            warnings.warn(
                f"the model was trained for {self.default_size} x {self.default_size} pixels; "
                f"{height} x {width} may look worse",
                stacklevel=4,
            )

    # Pixels

    @torch.no_grad()
    def decode(self, latents: Tensor, output_type: str = "pil", memory_limit: int | None = None):
        """Decodes latents (B, c, h, w) to images, within `memory_limit` bytes if given.

        Raises ValueError for another shape, and if the latents hold NaN or infinity.
        """
        check_output_type(output_type)
        latents = _tensor(latents, "latents")
        channels = self.model.config.generation.latent_channels
        if latents.ndim != 4 or latents.shape[1] != channels:
            raise ValueError(
                f"latents have shape {tuple(latents.shape)}; expected (images, {channels}, height, "
                "width)"
            )
        if not bool(latents.isfinite().all()):
            raise ValueError(
                "the latents hold NaN or infinity, so they cannot be decoded; try float32 or a "
                "smaller guidance_scale"
            )
        if output_type == "latent":
            return latents
        vae, policy = coding.upcast(self._autoencoder), self._decoding
        z = coding.to_code(vae, latents.to(self._execution_device, vae.dtype))
        limit = policy.limit if memory_limit is None else memory_limit
        ways = dict(slicing=policy.slicing, tiling=policy.tiling)
        pixels = memory.decode(vae, z, limit, **ways)
        finite.check_rows({"pixels": pixels}, "after the autoencoder")
        return self.image_processor.postprocess(pixels, output_type=output_type)

    @torch.no_grad()
    def encode(self, images_given) -> Tensor:
        """Encodes images (PIL, arrays or tensors) to latents (B, c, h, w) in float32."""
        pixels = images.to_tensor(images_given).to(self._execution_device)
        memory.check_sides(*pixels.shape[2:], self.vae_scale_factor)
        return coding.encode(self._autoencoder, 2 * pixels - 1)

    # Memory

    @renamed(pictures="images")
    def forecast(self, images: int = 1, **setting) -> memory.Forecast:
        """Returns the bytes that so many images at once need, and a few-step model once loaded.

        `memory.forecast` explains the arguments.
        """
        images = whole(images, "images")
        device = self._execution_device.type
        setting = dict(dtype=self.model.dtype, images=images, device=device) | setting
        found = memory.forecast(self.model.config, self._autoencoder, **setting)
        few = few_step.bytes_of(self.few_step)
        return replace(found, weights=found.weights + few)

    def limit_memory(self, size: int | None):
        """Limits decoding to so many bytes above the weights, from now on; None removes the limit.

        As many images as fit are decoded at once. If not even one fits it is decoded in tiles,
        which changes it slightly (with a warning). `pipe(prompt, memory_limit=size)` limits one
        call. Returns the pipeline.
        """
        return self._decode_with(limit=whole(size, "size", optional=True))

    def enable_vae_slicing(self) -> None:
        """Decodes one image at a time."""
        self._decode_with(slicing=True)

    def disable_vae_slicing(self) -> None:
        """Decodes all images of a call at once again."""
        self._decode_with(slicing=False)

    def enable_vae_tiling(self) -> None:
        """Decodes in tiles of the autoencoder's own size, which changes images slightly.

        An autoencoder of independent patches is not affected.
        """
        self._decode_with(tiling=True)

    def disable_vae_tiling(self) -> None:
        """Decodes images without tiles again."""
        self._decode_with(tiling=False)

    def _decode_with(self, **changes):
        self._decoding = replace(self._decoding, **changes)
        return self


def _tensor(values, name: str) -> Tensor:
    """Returns real numbers as a dense tensor. Raises TypeError for anything else."""
    try:
        frozen = isinstance(values, np.ndarray) and not values.flags.writeable
        found = torch.as_tensor(values.copy() if frozen else values)  # torch warns of frozen ones
    except (TypeError, ValueError, RuntimeError):
        found = None
    dense = found is not None and found.layout == torch.strided and not found.is_meta
    if not dense or found.is_complex():
        kind = type(values).__name__ if found is None else f"{found.dtype} {found.layout}"
        raise TypeError(f"{name} are of type {kind}; expected a dense tensor of real numbers")
    return found
