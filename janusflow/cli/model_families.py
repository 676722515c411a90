"""The options that each model family accepts, and how it is asked to generate."""

from dataclasses import dataclass

from janusflow.models.family import FLOW, PRO, family
from janusflow.models.family import side as side_of
from janusflow.pipelines.guided_velocity import read_guidance, rule_of
from janusflow.utils import limits

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
GUIDANCE = "2"  # of a flow, as published


@dataclass(frozen=True)
class CommandRequest:
    """`settings` are the arguments of the pipeline; `about` are the metadata of its images."""

    settings: dict
    about: dict
    few: object = None  # the few-step model whose weights generate it


def check(options) -> str:
    """Returns the model's family. Raises ValueError for an option that it does not support."""
    kind = family(options.model)
    other = FLOW if kind == PRO else PRO
    for name in OWN[other]:
        if getattr(options, name, None) not in (None, False):
            shown = name.removeprefix("num_inference_").replace("_", "-")
            raise ValueError(
                f"--{shown} is for {other}, and this model is of {kind}; leave it "
                f"out, or choose a model of {other}"
            )
    _check_verifier(options)
    return kind


def check_flow(model: str, wants: str, instead: str = "choose a JanusFlow") -> None:
    """Raises ValueError for a Janus-Pro; `wants` says what the command does with "a flow"."""
    if family(model) == PRO:
        raise ValueError(f"{wants} a flow, and Janus-Pro has no flow; {instead}")


def _check_verifier(options) -> None:
    """Raises ValueError for an unknown verifier, and for one without candidates to choose from."""
    if (name := getattr(options, "verifier", None)) is None:
        return
    from janusflow.pipelines.verifiers import find

    find(name)
    if options.best_of in (None, 1):
        raise ValueError(
            f"--verifier {name} chooses among candidates, and there is one; give --best-of above 1"
        )


def guided(kind: str, options) -> str:
    """Returns the user's guidance, or the model's default."""
    if options.guidance_scale is not None:
        return options.guidance_scale
    if kind == FLOW:
        return GUIDANCE
    from janusflow.models.janus_pro.loading import own_guidance
    from janusflow.utils.hub import locate

    return f"{own_guidance(locate(options.model)):g}"


def request(kind: str, options) -> CommandRequest:
    """Returns the request for these options. Raises ValueError for the first that does not fit."""
    from janusflow.utils.safe_io import check_prompt

    if options.negative_prompt is not None:
        check_prompt(options.negative_prompt, "--negative-prompt")
    return (_of_flow if kind == FLOW else _of_tokens)(options, guided(kind, options))


def _of_flow(options, text: str) -> CommandRequest:
    from janusflow.pipelines.presets import read_grid, read_grids, resolve
    from janusflow.utils.hub import locate

    steps = options.num_inference_steps
    limits.whole(steps, "--steps", "number", optional=True)
    check_sides(options)
    few = few_step_of(options, text)
    own = dict(sampler=options.sampler, steps=steps, grid=read_grid(options.grid))
    grids = None if few else read_grids(locate(options.model))
    chosen = few.quality if few else resolve(options.quality or "exact", grids, **own)
    chosen.path()
    if few:
        how = dict(quality=options.quality, guidance_scale=few.grid.guidance)
    else:
        how = dict(num_inference_steps=chosen.steps, sampler=chosen.sampler, grid=chosen.grid)
        how |= dict(guidance_scale=chosen.rule(rule_of(text)))
    settings = dict(
        **how,
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
    return CommandRequest(settings, about | _if_given(options, *ALSO_TOLD), few)


def few_step_of(options, text: str):
    """Returns the few-step model that these options select, or None."""
    from janusflow.pipelines import few_step
    from janusflow.utils.hub import locate

    found = few_step.read(locate(options.model))
    if options.quality not in found:
        return None
    side = side_of(options.model)
    return few_step.choose(found, options.quality, options, read_guidance(text), side)


def check_sides(options) -> None:
    """Raises ValueError for a height or width below one pixel or beyond the limit."""
    for name in ("height", "width"):
        limits.whole(getattr(options, name), f"--{name}", "side", optional=True)


def _of_tokens(options, text: str) -> CommandRequest:
    own = dict(
        temperature=1.0 if options.temperature is None else options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
    )
    settings = own | dict(guidance_scale=rule_of(text), negative_prompt=options.negative_prompt)
    about = dict(model=options.model, guidance_scale=text, dtype=options.dtype, **own)
    about |= dict(negative_prompt=options.negative_prompt or "")
    return CommandRequest(settings, about | _if_given(options, "lora"))


def _if_given(options, *names: str) -> dict:
    return {n: getattr(options, n) for n in names if getattr(options, n) is not None}
