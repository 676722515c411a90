"""What each family of models takes on the command line, and how it is asked to generate."""

from __future__ import annotations

from dataclasses import dataclass

from janusflow.cli.shared_options import guidance
from janusflow.pipelines import auto_pipeline
from janusflow.pipelines.auto_pipeline import FLOW, PRO

OWN = {
    FLOW: (
        "quality",
        "num_inference_steps",
        "sampler",
        "grid",
        "height",
        "width",
        "vae",
        "first_block_cache",
        "best_of",
        "verifier",
        "compile",
    ),
    PRO: ("temperature", "top_k", "top_p"),
}
ALSO_TOLD = ("lora", "first_block_cache", "best_of", "verifier")
GUIDANCE = {FLOW: "2", PRO: "5"}  # as published


@dataclass(frozen=True)
class Request:
    """`settings` are arguments of the pipeline; `about` is what an image's text says of them."""

    settings: dict
    about: dict


def check(options) -> str:
    """The model's family; ValueError for an option that it has no use for."""
    kind = auto_pipeline.family(options.model)
    other = FLOW if kind == PRO else PRO
    for name in OWN[other]:
        if getattr(options, name, None) not in (None, False):
            shown = name.removeprefix("num_inference_").replace("_", "-")
            raise ValueError(
                f"--{shown} is for {other}, and this model is of {kind}; leave it "
                f"out, or choose a model of {other}"
            )
    return kind


def guided(kind: str, text: str | None) -> str:
    """The user's guidance, or the family's own."""
    return GUIDANCE[kind] if text is None else text


def request(kind: str, options) -> Request:
    """How to generate; ValueError for the first setting that does not fit."""
    from janusflow.utils.safe_io import check_prompt

    if options.negative_prompt is not None:
        check_prompt(options.negative_prompt, "--negative-prompt")
    return (_of_flow if kind == FLOW else _of_tokens)(options, guided(kind, options.guidance_scale))


def _of_flow(options, text: str) -> Request:
    from janusflow.pipelines.presets import read_grid, read_grids, resolve
    from janusflow.utils.hub import locate

    steps = check_steps(options.num_inference_steps)
    check_sides(options)
    own = dict(sampler=options.sampler, steps=steps, grid=read_grid(options.grid))
    chosen = resolve(options.quality or "exact", read_grids(locate(options.model)), **own)
    chosen.path()
    settings = dict(
        num_inference_steps=chosen.steps,
        guidance_scale=chosen.rule(guidance(text)),
        sampler=chosen.sampler,
        grid=chosen.grid,
        negative_prompt=options.negative_prompt,
        height=options.height,
        width=options.width,
        first_block_cache=options.first_block_cache,
        **_if_given(options, "best_of", "verifier"),
    )
    told = chosen.told()
    about = dict(model=options.model, guidance_scale=text, sampler=told["sampler"])
    about |= dict(num_inference_steps=told["steps"], grid=told["grid"])
    about |= dict(guidance_interval=told["guided"])
    about |= dict(negative_prompt=options.negative_prompt or "", dtype=options.dtype)
    about |= dict(height=options.height or "", width=options.width or "")
    return Request(settings, about | _if_given(options, *ALSO_TOLD))


def check_sides(options) -> None:
    """ValueError for a height or width of less than one pixel, or beyond the limit."""
    from janusflow.utils import limits

    for name in ("height", "width"):
        side = getattr(options, name)
        if side is not None and side < 1:
            raise ValueError(f"--{name} is {side}; expected pixels, at least 1")
        limits.hold("side", side or 1, f"--{name} is {side} pixels")


def check_steps(steps: int | None) -> int | None:
    """The number of steps; ValueError for less than one and for more than the limit."""
    from janusflow.utils import limits

    if steps is not None and steps < 1:
        raise ValueError(f"--steps is {steps}; expected at least 1")
    limits.hold("number", steps or 1, f"--steps is {steps}")
    return steps


def _of_tokens(options, text: str) -> Request:
    own = dict(
        temperature=1.0 if options.temperature is None else options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
    )
    settings = own | dict(guidance_scale=guidance(text), negative_prompt=options.negative_prompt)
    about = dict(model=options.model, guidance_scale=text, dtype=options.dtype, **own)
    about |= dict(negative_prompt=options.negative_prompt or "")
    return Request(settings, about | _if_given(options, "lora"))


def _if_given(options, *names: str) -> dict:
    return {n: getattr(options, n) for n in names if getattr(options, n) is not None}
