"""Pictures changed: noised part of the way, inverted and made again, or only inside a mask.

The functions are methods of `JanusFlowPipeline` (`pipe.edit`, `pipe.invert`). Their arguments have
the names and defaults of diffusers' image-to-image and inpainting pipelines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

import samplers
from janusflow.pipelines.outputs import JanusFlowOutput, Seeds, check, row_times, seeded, time_grid
from janusflow.utils.images import to_rgb
from samplers.core import find, times
from samplers.solvers.linear_multistep import Learned

Texts = str | Sequence[str]
UNTOLD = "a picture"  # stands where no text came; the unconditional rows drop its words


@dataclass
class JanusFlowInversion(BaseOutput):
    """Pictures as noise, and what comes back from it.

    `noise` (B, c, h, w) is what `pipe(prompt, latents=noise)` takes; `images` are the pictures
    made from it again. `psnr` compares these with the originals and `autoencoder_psnr` does so for
    pictures that were only encoded and decoded, which nothing can exceed by more than luck; both
    in dB for pixels in [0, 1], one a picture. `calls`: network evaluations per picture, there and
    back together.
    """

    noise: Tensor
    images: list | Tensor
    psnr: list[float]
    autoencoder_psnr: list[float]
    calls: int


@torch.no_grad()
def edit(
    pipe,
    image,
    prompt: Texts,
    *,
    strength: float = 0.6,
    mask_image=None,
    invert: bool = False,
    source_prompt: Texts | None = None,
    negative_prompt: Texts | None = None,
    num_inference_steps: int = 30,
    guidance_scale: float | Callable = 2.0,
    sampler: str | samplers.Solver = "euler",
    grid: str | Tensor | Callable[[int], Tensor] | None = None,
    height: int | None = None,
    width: int | None = None,
    generator: Seeds = None,
    output_type: str = "pil",
    callback_on_step_end: Callable | None = None,
    return_dict: bool = True,
) -> JanusFlowOutput | tuple:
    """Pictures that follow the prompts and keep of `image` what `strength` and the mask leave.

    The run starts at t = 1 - strength and spends that part of the steps: from (1 - t) noise + t
    data with noise from `generator`, or with `invert=True` from where the flow itself takes the
    picture, backwards from t = 1 with the same sampler and times, unguided, following
    `source_prompt` (a description of the picture; none means the model's own without a text).
    Euler leads back well for part of the way; for all of it take a second-order sampler.

    Where `mask_image` (of the picture's size) is white the picture changes, where black it stays.
    As in diffusers it is binarized at one half; other than there, a latent changes if any of its
    pixels is white, and the black pixels of the result are always the picture's own (diffusers
    pastes them back only with padding_mask_crop); latents are returned as they are.

    One picture goes with several prompts and the other way round. Pictures (PIL, arrays or
    tensors) are resized to height x width, by default the size the model was trained for. Other
    arguments as in `pipe(...)`. Raises ValueError for what does not fit.
    """
    prompts, pictures = _matched(prompt, image)
    check(prompts, num_inference_steps, 1, output_type)
    check_edit(strength, invert, source_prompt, generator)
    solver = seeded(find(sampler), generator)
    whole = times(time_grid(solver, num_inference_steps, grid), solver)
    ts = _part(solver, whole, strength, invert)
    height, width = _size(pipe, pictures, height, width)
    mask = None if mask_image is None else _mask(mask_image, pictures, height, width)
    pixels = _pixels(pipe, pictures, height, width)

    field = samplers.count(pipe.field(prompts, guidance_scale, negative_prompt))
    data = pipe.encode(pixels)
    if invert:
        source = samplers.count(_source(pipe, source_prompt, prompts))
        noise = _noise(samplers.sample(source, data, ts.flip(0), solver), data, ts[0])
    else:
        noise = pipe.prepare_latents(len(prompts), height, width, generator)
    v = field
    if mask is not None:
        v = samplers.masked(field, data, noise, _shrunk(mask, pipe.vae_scale_factor))
    start = samplers.between(data, noise, ts[0])
    x = pipe._integrate(v, start, ts, solver, callback_on_step_end)
    images = _shown(pipe, x, output_type, pixels, mask)
    pipe.maybe_free_model_hooks()
    calls = field.calls + (source.calls if invert else 0)
    return JanusFlowOutput(images=images, calls=calls) if return_dict else (images, calls)


@torch.no_grad()
def invert(
    pipe,
    image,
    prompt: Texts | None = None,
    *,
    num_inference_steps: int = 15,
    guidance_scale: float | Callable = 1.0,
    sampler: str | samplers.Solver = "heun",
    grid: str | Tensor | Callable[[int], Tensor] | None = None,
    height: int | None = None,
    width: int | None = None,
    output_type: str = "pil",
) -> JanusFlowInversion:
    """The noise that the flow makes into these pictures, and a report of the way there and back.

    `prompt` describes the pictures; none means the model's own flow without a text. The same
    steps are taken in both directions, by default 30 calls each way. A `guidance_scale` other than
    1 needs a prompt and makes the way back less exact. Raises ValueError for what does not fit.
    """
    prompts, pictures = _matched(UNTOLD if prompt is None else prompt, image)
    check(prompts, num_inference_steps, 1, output_type)
    solver = find(sampler)
    ts = _part(solver, times(time_grid(solver, num_inference_steps, grid), solver), 1.0, True)
    height, width = _size(pipe, pictures, height, width)
    pixels = _pixels(pipe, pictures, height, width)
    if prompt is None and guidance_scale != 1:
        raise ValueError(
            f"guidance_scale is {guidance_scale!r} without a prompt; give a prompt, or leave it 1"
        )
    v = _source(pipe, None, prompts) if prompt is None else pipe.field(prompts, guidance_scale)
    data = pipe.encode(pixels)
    trip = samplers.round_trip(v, data, ts, solver)
    report = JanusFlowInversion(
        noise=trip.noise,
        images=_shown(pipe, trip.restored, output_type),
        psnr=_psnr(pixels, pipe.decode(trip.restored, "pt")),
        autoencoder_psnr=_psnr(pixels, pipe.decode(data, "pt")),
        calls=trip.calls,
    )
    pipe.maybe_free_model_hooks()
    return report


# Times and fields


def _part(solver: samplers.Solver, ts: Tensor, strength: float, invert: bool) -> Tensor:
    """The times from 1 - strength on, for a solver that can walk them as asked."""
    if ts[0] != 0 or ts[-1] != 1:
        raise ValueError(
            f"the grid runs from {float(ts[0]):.6g} to {float(ts[-1]):.6g}; an edit wants 0 to 1 "
            "and cuts it by its strength"
        )
    if invert and solver.stochastic:
        raise ValueError(
            f"{solver.name} adds noise on its way, so nothing leads back; choose a solver without, "
            "such as heun"
        )
    part = samplers.partway(ts, strength)
    if isinstance(solver, Learned) and (invert or strength < 1):
        raise ValueError(
            f"{solver.name} only runs from noise to data at the times it learned; choose another "
            "solver, such as heun"
        )
    return part


def _source(pipe, source_prompt: Texts | None, prompts: list[str]) -> samplers.core.Velocity:
    """The unguided velocity to invert with; without a text, that of the unconditional rows."""
    if source_prompt is not None:
        texts = [source_prompt] if isinstance(source_prompt, str) else list(source_prompt)
        if len(texts) not in (1, len(prompts)):
            raise ValueError(
                f"{len(texts)} source prompts came for {len(prompts)} pictures; give one, or one "
                "a picture"
            )
        return pipe.field(_spread(texts, len(prompts)))
    rows = pipe.encode_prompts(prompts)[1]
    return lambda x, t: pipe.model.velocity(x, row_times(t, x), rows)


def _noise(x: Tensor, data: Tensor, t: Tensor) -> Tensor:
    """The noise whose straight line to the data passes through x at time t < 1."""
    return (x - t * data) / (1 - t)


# Pictures and masks


def _matched(prompt: Texts, image) -> tuple[list[str], list[Image.Image]]:
    """As many prompts as pictures, one of either standing for all."""
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    pictures = _listed(image)
    count = max(len(prompts), len(pictures))
    if any(len(row) not in (1, count) for row in (prompts, pictures)):
        raise ValueError(
            f"{len(prompts)} prompts came for {len(pictures)} pictures; give one of either for "
            "all, or as many"
        )
    return _spread(prompts, count), _spread(pictures, count)


def _spread(items: list, count: int) -> list:
    return items * count if len(items) == 1 else items


def _listed(image) -> list[Image.Image]:
    """PIL pictures in RGB, from one picture, a list of them, or a batch as array or tensor."""
    several = isinstance(image, list | tuple) or getattr(image, "ndim", 3) == 4
    return [to_rgb(picture) for picture in (image if several else [image])]


def _size(pipe, pictures: list[Image.Image], height, width) -> tuple[int, int]:
    """The size to work at; ValueError if a picture would be distorted without being asked to."""
    side = pipe.default_size
    if height is None and width is None:
        for w, h in (picture.size for picture in pictures):
            if w != h:
                raise ValueError(
                    f"the picture is {w} x {h} and the model makes {side} x {side}; crop it to "
                    "that shape, or give height and width to stretch it"
                )
    height, width = height or side, width or side
    pipe._check_size(height, width)
    return height, width


def _pixels(pipe, pictures: list[Image.Image], height: int, width: int) -> Tensor:
    """(B, 3, height, width) in [0, 1] on the pipeline's device."""
    resized = [pipe.image_processor.resize(picture, height, width) for picture in pictures]
    pixels = pipe.image_processor.pil_to_numpy(resized)
    return pipe.image_processor.numpy_to_pt(pixels).to(pipe._execution_device)


def _mask(mask_image, pictures: list[Image.Image], height: int, width: int) -> Tensor:
    """(1 or B, 1, height, width): 1 where the picture changes, 0 where it stays."""
    masks = _listed(mask_image)
    if len(masks) not in (1, len(pictures)):
        raise ValueError(
            f"{len(masks)} masks came for {len(pictures)} pictures; give one, or one a picture"
        )
    for mask, picture in zip(_spread(masks, len(pictures)), pictures, strict=True):
        if mask.size != picture.size:
            raise ValueError(
                f"the mask is {mask.width} x {mask.height} and the picture {picture.width} x "
                f"{picture.height}; make them the same size"
            )
    resized = [mask.convert("L").resize((width, height), Image.Resampling.BOX) for mask in masks]
    rows = [torch.frombuffer(bytearray(m.tobytes()), dtype=torch.uint8) for m in resized]
    return (torch.stack(rows).view(-1, 1, height, width) >= 128).float()


def _shrunk(mask: Tensor, factor: int) -> Tensor:
    """A latent changes if any of its factor x factor pixels does."""
    return torch.nn.functional.max_pool2d(mask, factor)


def _shown(pipe, x: Tensor, output_type: str, pixels=None, mask: Tensor | None = None):
    """The pictures of latents, with the original's pixels where the mask is black."""
    if mask is None or output_type == "latent":
        return pipe.decode(x, output_type)
    changed = mask.to(pixels.device) > 0
    images = torch.where(changed, pipe.decode(x, "pt"), pixels)
    return pipe.image_processor.postprocess(images, output_type, [False] * len(images))


def _psnr(pictures: Tensor, others: Tensor) -> list[float]:
    """-10 log10 of the mean squared difference, for (B, 3, H, W) in [0, 1]."""
    square = (pictures - others).double().square().flatten(1).mean(dim=1)
    return (-10 * square.log10()).tolist()


# What is asked


def check_edit(strength: float, invert: bool, source_prompt, generator: Seeds) -> None:
    """ValueError for a strength outside (0, 1] and for what inversion excludes or alone takes."""
    samplers.partway(torch.tensor([0.0, 1.0]), strength)
    if source_prompt is not None and not invert:
        raise ValueError("a source prompt describes the picture to inversion; add invert")
    if generator is not None and invert:
        raise ValueError("inversion finds its noise and draws none; leave out generator and seed")
