"""Images for a request, generated one after another from their own seeds."""

import base64
import io
import random
import time

import torch
from PIL import Image

from janusflow.pipelines.pipeline_janusflow import JanusFlowPipeline
from janusflow.serve.errors import ApiError
from janusflow.serve.schemas import MAX_SEED, PRESETS, EditRequest, ImageRequest
from janusflow.serve.worker import ModelJob

LARGEST = 2  # times the side that the model was trained for
GUIDANCE = 2.0


def check(pipe, asked: ImageRequest) -> None:
    """Raises ApiError for options that this model does not support."""
    width, height = asked.sides()
    own = pipe.default_size
    if isinstance(pipe, JanusFlowPipeline):
        _check_sides(pipe, width, height, own)
    else:
        _check_pro(asked, own)
    if asked.output_compression is not None and (asked.output_format or "png") == "png":
        raise ApiError(
            "output_compression is for jpeg and webp; leave it out, or name such an output_format",
            "output_compression",
        )


def _check_sides(pipe, width: int | None, height: int | None, own: int) -> None:
    if width is None:
        return
    if max(width, height) > LARGEST * own:
        raise ApiError(
            f"size is {width}x{height}; expected at most {LARGEST * own} pixels a side, the model "
            f"was trained for {own}",
            "size",
        )
    try:
        pipe.check_sides(height, width)
    except ValueError as error:
        raise ApiError(f"size is {width}x{height}; {error}", "size") from error


def _check_pro(asked: ImageRequest, own: int) -> None:
    if asked.sides() not in ((None, None), (own, own)):
        raise ApiError(
            f"size is {asked.size}; this model makes {own}x{own} only, leave it out", "size"
        )
    for name in ("num_inference_steps", "quality"):
        if getattr(asked, name) not in (None, "auto"):
            raise ApiError(f"{name} is not for Janus-Pro, which has no steps; leave it out", name)


def generate(pipe, asked: ImageRequest, job: ModelJob) -> dict:
    """Returns OpenAI's response: `n` images, the i-th with seed + i, independent of the others."""
    settings = dict(guidance_scale=asked.guidance_scale, negative_prompt=asked.negative_prompt)
    if isinstance(pipe, JanusFlowPipeline):
        width, height = asked.sides()
        settings |= dict(width=width, height=height, quality=PRESETS[asked.quality or "auto"])
        settings |= dict(num_inference_steps=asked.num_inference_steps)
        settings["guidance_scale"] = (
            GUIDANCE if asked.guidance_scale is None else asked.guidance_scale
        )
    settings = {name: value for name, value in settings.items() if value is not None}
    return _several(asked, job, lambda **own: pipe(asked.prompt, **settings, **own))


def edit(
    pipe, asked: EditRequest, image: Image.Image, mask: Image.Image | None, job: ModelJob
) -> dict:
    """Returns the same for an edited image; it may change where `mask` is white."""
    settings = dict(
        strength=asked.strength,
        mask_image=mask,
        negative_prompt=asked.negative_prompt,
        guidance_scale=asked.guidance_scale,
        num_inference_steps=asked.num_inference_steps,
    )
    width, height = asked.sides()
    if width is None and image.width != image.height:
        said = f"the image is {image.width} x {image.height}; crop it to a square, or give a size"
        raise ApiError(f"{said} to stretch it to", "image")
    settings |= dict(width=width, height=height)
    settings = {name: value for name, value in settings.items() if value is not None}
    return _several(asked, job, lambda **own: pipe.edit(image, asked.prompt, **settings, **own))


def _several(asked: ImageRequest, job: ModelJob, make) -> dict:
    first = random.randrange(2**32) if asked.seed is None else asked.seed
    data = []
    for number in range(first, first + (asked.n or 1)):
        job.check()
        seed = number % (MAX_SEED + 1)
        generator = torch.Generator().manual_seed(seed)
        out = make(generator=generator, callback_on_step_end=_stops(job))
        data.append(_entry(out.images[0], asked) | {"seed": seed})
    width, height = out.images[0].size
    told = dict(size=f"{width}x{height}", output_format=asked.output_format or "png")
    told |= dict(background="opaque", quality=asked.quality or "auto")
    return {"created": int(time.time()), "data": data, **told}


def _stops(job: ModelJob):
    def callback(_pipe, _step, _t, _tensors) -> dict:
        job.check()
        return {}

    return callback


def _entry(image: Image.Image, asked: ImageRequest) -> dict:
    kind = asked.output_format or "png"
    quality = 90 if asked.output_compression is None else asked.output_compression
    options = {} if kind == "png" else {"quality": quality}
    file = io.BytesIO()
    image.save(file, kind.upper(), **options)
    text = base64.b64encode(file.getvalue()).decode("ascii")
    if asked.response_format == "url":
        return {"url": f"data:image/{kind};base64,{text}"}
    return {"b64_json": text}
