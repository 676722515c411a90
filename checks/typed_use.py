"""A program as users write it, in which pyright finds no fault: `pyright` (see pyproject.toml).

It is read and not run; each line uses a public name in the way of the pages.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from PIL import Image
from torch import Tensor

import janusflow
import samplers
from janusflow import JanusFlowConfig, JanusFlowModel, JanusFlowPipeline, JanusFlowProcessor


def images() -> list[Image.Image]:
    pipe = JanusFlowPipeline.from_pretrained("janusflow/scenes", dtype=torch.float32)
    seed = torch.Generator().manual_seed(0)
    out = pipe("a red circle", num_inference_steps=30, guidance_scale=2.0, generator=seed)
    several = pipe(["a star", "a ring"], quality="fast", sampler="auto", grid="uniform")
    pipe.to("cpu").set_progress_bar_config(disable=True)
    print(out.calls, pipe.device, pipe.dtype)
    return [*out.images, *several.images]


def answers(image: Image.Image) -> list[str]:
    pipe = JanusFlowPipeline.from_pretrained("janusflow/scenes")
    talk = pipe.conversation([image])
    said = [pipe.chat("what is it?", image), talk.ask("what color?")]
    said += list(pipe.chat("what is it?", image, stream=True))
    edited = pipe.edit(image, "a blue circle", strength=0.6)
    edited.images[0].save("edited.png")
    return said


def by_name() -> None:
    pipe = janusflow.load("janusflow/scenes", device="cpu")
    pipe.save_pretrained("copy")
    config: JanusFlowConfig = JanusFlowConfig.from_pretrained("copy")
    model: JanusFlowModel = JanusFlowModel.from_pretrained("copy")
    processor: JanusFlowProcessor = JanusFlowProcessor.from_pretrained("copy")
    print(config.model_type, model.device, processor.image_tag)


def velocity(x: Tensor, t: Tensor) -> Tensor:
    return -2 * t * x**2


@samplers.solver(order=2, calls=2)
def endpoint_mean(v, x, ts):
    """Returns the mean of the velocities at both ends of an Euler step."""
    for t, s in pairwise(ts):
        k = v(x, t)
        x = x + (s - t) / 2 * (k + v(x + (s - t) * k, s))
        yield x


@samplers.rule
def fading(weight):
    """Returns a weight that falls to 1 at the data."""
    return samplers.cfg(lambda t: weight + (1 - weight) * t)


@samplers.grid
def cubic(n: int) -> Tensor:
    """Returns the grid t = (i / n)^3."""
    return (torch.arange(n + 1, dtype=torch.float64) / n) ** 3


def solved() -> Tensor:
    noise = torch.randn(8, 2)
    x: Tensor = samplers.sample(velocity, noise, 16, "auto")
    for t, state in samplers.trajectory(velocity, noise, 8, solver="heun"):
        print(float(t), state.shape)
    guided = samplers.guide(samplers.pair(velocity, velocity), samplers.cfg(2.0))
    x = x + samplers.sample(guided, noise, samplers.GRIDS["cosine"](8), "abm")
    found = samplers.log_likelihood(velocity, x, 32)
    best = samplers.pilot(velocity, noise, 8)
    x = x + samplers.sample(velocity, noise, best, "auto")
    print(found.value, samplers.count(velocity).calls, samplers.SOLVERS["abm"].order)
    print(samplers.guidance_interval(2.0), fading, cubic, endpoint_mean)
    kept = samplers.inpaint(velocity, x, noise, torch.ones_like(x))
    return samplers.sample(kept, noise, 8)
