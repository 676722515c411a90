"""Image editing: partial noising (SDEdit), inversion, and inpainting."""

from dataclasses import dataclass

import torch
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor, nn

import samplers
from janusflow.pipelines.call_options import EditOptions, InvertOptions, Texts, spread, takes, texts
from janusflow.pipelines.generators import generators, seeded
from janusflow.pipelines.guided_velocity import row_times
from janusflow.pipelines.outputs import JanusFlowOutput, Shown
from janusflow.pipelines.time_grid import time_grid
from janusflow.utils import images
from samplers.core import find, times
from samplers.solvers.linear_multistep import Learned

UNTOLD = "a picture"  # stands where no text came; the unconditional rows drop its words


@dataclass
class JanusFlowInversion(Shown, BaseOutput):
    """The result of `pipe.invert`: the noise of the images, and how well they come back from it.

    `noise` (B, c, h, w) can be passed as `pipe(prompt, latents=noise)`; `images` are generated from
    it again. `psnr` compares these with the originals; `autoencoder_psnr` does so for images that
    were only encoded and decoded, which is its practical upper bound. Both are in dB for pixels in
    [0, 1], one per image. `calls` is the network evaluations per image, both directions together.
    """

    noise: Tensor
    images: list[Image.Image]
    psnr: list[float]
    autoencoder_psnr: list[float]
    calls: int
    captions: list[str] | None = None


class Editing:
    """A mixin of pipelines with a flow: `edit` and `invert`."""

    @torch.no_grad()
    @takes(EditOptions)
    def edit(self, image, prompt: Texts, options: EditOptions) -> JanusFlowOutput:
        """Edits images to follow the prompts, keeping of `image` what `strength` and the mask
        leave.

        The run starts at t = 1 - strength and takes that fraction of the steps. Its start is (1 -
        t) noise + t data with noise from `generator` or `seed`; or, with `invert=True`, the state
        that the flow reaches from the image backwards from t = 1, with the same sampler and times,
        unguided and following `source_prompt` (a description of the image; None means the model's
        own flow without a text). Euler inverts partially noised images well; for strength 1 use a
        second-order sampler.

        The image changes where `mask_image` (of the image's size) is white and stays where it is
        black. As in diffusers the mask is binarized at one half. Unlike there, a latent changes if
        any of its pixels is white, and black pixels of the result are always the original's
        (diffusers pastes them back only with padding_mask_crop); with latent output nothing is
        pasted.

        One image may have several prompts and one prompt several images. Images (PIL, arrays or
        tensors) are resized to height x width, by default the size the model was trained for. Other
        arguments are as in `pipe(...)`. Raises ValueError for arguments that do not fit together.
        """
        prompts, originals = _matched(prompt, image)
        check_edit(
            options.strength,
            options.invert,
            options.source_prompt,
            options.generator if options.seed is None else options.seed,
        )
        generator = generators(options.generator, options.seed, len(prompts))
        solver = seeded(find(options.sampler), generator)
        ts = _times(solver, options.num_inference_steps, options.grid)
        ts = _part(solver, ts, options.strength, options.invert)
        height, width = _size(self, originals, options.height, options.width)
        mask = _mask(options.mask_image, originals, height, width)
        pixels = _pixels(self, originals, height, width)
        state = dict(num_timesteps=len(ts) - 1, guidance_scale=options.guidance_scale)
        state["prompts"] = (prompts, options.negative_prompt)
        with self._call(options.adapters, **state) as call:
            call.velocity = self.field(prompts, options.guidance_scale, options.negative_prompt)
            v = samplers.count(call.velocity)
            data, spent = self.encode(pixels), 0
            if options.invert:
                source = samplers.count(_source(self, options.source_prompt, prompts))
                x = samplers.sample(source, data, ts.flip(0), solver)
                noise = (x - ts[0] * data) / (1 - ts[0])  # whose line to the data passes x
                spent = source.calls
            else:
                noise = self.prepare_latents(len(prompts), height, width, generator)
            field = v
            if mask is not None:
                area = nn.functional.max_pool2d(mask, self.vae_scale_factor)  # any of its pixels
                field = samplers.inpaint(v, data, noise, area)
            start = samplers.interpolate(data, noise, ts[0])
            x = self._solve(call, field, start, ts, solver, self._callback(options))
            shown = _shown(self, x, options, pixels, mask)
        if not options.return_dict:
            return (shown, v.calls + spent)
        return JanusFlowOutput(images=shown, calls=v.calls + spent, captions=prompts)

    @torch.no_grad()
    @takes(InvertOptions)
    def invert(
        self, image, prompt: Texts | None = None, *, options: InvertOptions
    ) -> JanusFlowInversion:
        """Computes the noise that the flow maps to these images, and reports the error of the round
        trip.

        `prompt` describes the images; None means the model's own flow without a text. Both
        directions take the same steps, by default 30 network evaluations each. A `guidance_scale`
        other than 1 needs a prompt and makes the round trip less exact. Raises ValueError for
        arguments that do not fit together.
        """
        prompts, originals = _matched(UNTOLD if prompt is None else prompt, image)
        solver, weight = find(options.sampler), options.guidance_scale
        ts = _part(solver, _times(solver, options.num_inference_steps, options.grid), 1.0, True)
        height, width = _size(self, originals, options.height, options.width)
        pixels = _pixels(self, originals, height, width)
        if prompt is None and weight != 1:
            raise ValueError(
                f"guidance_scale is {weight!r} without a prompt; give a prompt, or leave it 1"
            )
        with self._call(num_timesteps=len(ts) - 1, guidance_scale=weight):
            v = _source(self, None, prompts) if prompt is None else self.field(prompts, weight)
            data = self.encode(pixels)
            trip = samplers.round_trip(v, data, ts, solver)
            return JanusFlowInversion(
                noise=trip.noise,
                images=self.decode(trip.restored, options.output_type),
                psnr=_psnr(pixels, self.decode(trip.restored, "pt")),
                autoencoder_psnr=_psnr(pixels, self.decode(data, "pt")),
                calls=trip.calls,
                captions=prompts,
            )


# Times and fields


def _times(solver: samplers.Solver, steps: int, grid) -> Tensor:
    return times(time_grid(solver, steps, grid), solver)


def _part(solver: samplers.Solver, ts: Tensor, strength: float, invert: bool) -> Tensor:
    """Returns the times from 1 - strength on, for a solver that can use them."""
    if ts[0] != 0 or ts[-1] != 1:
        raise ValueError(
            f"the grid runs from {float(ts[0]):.6g} to {float(ts[-1]):.6g}; give times from 0 to "
            "1, of which the edit takes the part that its strength asks for"
        )
    if invert and solver.stochastic:
        raise ValueError(
            f"{solver.name} adds noise in its steps, so it cannot be inverted; choose a solver "
            "without noise, such as heun"
        )
    part = samplers.img2img_timesteps(ts, strength)
    if isinstance(solver, Learned) and (invert or strength < 1):
        raise ValueError(
            f"{solver.name} only runs from noise to data at the times it learned; choose another "
            "solver, such as heun"
        )
    return part


def _source(pipe, source_prompt: Texts | None, prompts: list[str]) -> samplers.core.Velocity:
    """Returns the unguided velocity for inversion; without a text it is the unconditional one."""
    if source_prompt is not None:
        return pipe.field(spread(texts(source_prompt), len(prompts), "source prompts", "images"))
    rows = pipe.encode_prompts(prompts)[1]
    return lambda x, t: pipe.model.velocity(x, row_times(t, x), rows)


# Images and masks


def _matched(prompt: Texts, image) -> tuple[list[str], list[Image.Image]]:
    """Repeats a single prompt or image to match the number of the others."""
    prompts, originals = texts(prompt), [images.to_rgb(one) for one in images.listed(image)]
    if len(originals) == 1:
        return prompts, originals * len(prompts)
    return spread(prompts, len(originals), "prompts", "images"), originals


def _size(pipe, originals: list[Image.Image], height, width) -> tuple[int, int]:
    """Returns the working size. Raises ValueError if that would distort an image."""
    side = pipe.default_size
    if height is None and width is None:
        for w, h in (image.size for image in originals):
            if w != h:
                raise ValueError(
                    f"the image is {w} x {h} and the model makes {side} x {side}; crop it to "
                    "that shape, or give height and width to stretch it"
                )
    height, width = height or side, width or side
    pipe._check_size(height, width)
    return height, width


def _pixels(pipe, originals: list[Image.Image], height: int, width: int) -> Tensor:
    """Returns (B, 3, height, width) in [0, 1] on the pipeline's device."""
    resized = [pipe.image_processor.resize(image, height, width) for image in originals]
    return images.to_tensor(resized).to(pipe._execution_device)


def _mask(mask_image, originals: list[Image.Image], height: int, width: int) -> Tensor | None:
    """Returns (1 or B, 1, height, width), 1 where the image changes, 0 where it stays, or None."""
    if mask_image is None:
        return None
    masks = [images.to_mask(mask) for mask in images.listed(mask_image)]
    each = spread(masks, len(originals), "masks", "images")
    for mask, image in zip(each, originals, strict=True):
        if mask.size != image.size:
            raise ValueError(
                f"the mask is {mask.width} x {mask.height} and the image {image.width} x "
                f"{image.height}; make them the same size"
            )
    resized = [mask.resize((width, height), Image.Resampling.BOX) for mask in masks]
    rows = [torch.frombuffer(bytearray(m.tobytes()), dtype=torch.uint8) for m in resized]
    chosen = torch.stack(rows).view(-1, 1, height, width) >= 128
    if not bool(chosen.flatten(1).any(1).all()):
        raise ValueError(
            "no pixel of the mask is white, so nothing would change; invert the mask, or leave it "
            "out"
        )
    return chosen.float()


def _shown(pipe, x: Tensor, options: EditOptions, pixels: Tensor, mask: Tensor | None):
    """Returns the images of latents, with the original's pixels where the mask is black."""
    kind, limit = options.output_type, options.memory_limit
    if mask is None or kind == "latent":
        return pipe.decode(x, kind, limit)
    changed = mask.to(pixels.device) > 0
    found = torch.where(changed, pipe.decode(x, "pt", limit), pixels)
    return pipe.image_processor.postprocess(found, kind, [False] * len(found))


def _psnr(some: Tensor, others: Tensor) -> list[float]:
    """-10 log10 of the mean squared difference, for (B, 3, H, W) in [0, 1]."""
    square = (some - others).cpu().double().square().flatten(1).mean(dim=1)
    return (-10 * square.log10()).tolist()


# What is asked


def check_edit(strength: float, invert: bool, source_prompt, generator) -> None:
    """Raises ValueError for a strength outside (0, 1] and for options that do not fit inversion."""
    samplers.img2img_timesteps(torch.tensor([0.0, 1.0]), strength)
    if source_prompt is not None and not invert:
        raise ValueError(
            "source_prompt needs invert, which is off; turn invert on, or leave source_prompt out"
        )
    if generator is not None and invert:
        raise ValueError(
            "invert computes the noise from the image and draws none; leave out generator and seed"
        )
