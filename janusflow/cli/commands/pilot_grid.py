"""Computes a pilot grid: the times at which a preset's few steps are best spent on one model."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

import samplers
from janusflow.pipelines.presets import resolve
from janusflow.scenes.world import SPLITS, prompt


def place(
    pipe,
    prompts: Sequence[str],
    quality: str = "fast",
    *,
    steps: int | None = None,
    sampler: str | None = None,
    guidance_scale: float = 2.0,
    until: float | None = None,
    seed: int = 0,
    looks: int | None = None,
    watch: Callable[[], object] = lambda: None,
) -> samplers.PilotGrid:
    """Runs `samplers.pilot` on this model's guided velocity, with one noise per prompt.

    Solver, steps and guidance interval are the preset's unless given; `until` is the time in [0, 1]
    at which guidance ends. The grid is used as `pipe(..., grid=found.ts)`, or with its interval as
    `pipe.grids[quality]`, which `save_pretrained` stores. The cost is about 64 + looks * steps
    evaluations of all prompts at once, with up to four steps twice as much; `watch` is called
    before each. Raises ValueError for arguments that do not fit.
    """
    chosen = resolve(quality, sampler=sampler, steps=steps)
    if until is not None:
        if not 0 <= until <= 1:
            raise ValueError(f"guidance is to end at t = {until:g}; expected a time from 0 to 1")
        chosen = replace(chosen, guided=(0.0, float(until)))
    solver, _ = chosen.path(guidance_scale)
    generator = torch.Generator().manual_seed(seed)
    noise = pipe.prepare_latents(len(prompts), None, None, generator)
    field = pipe.field(prompts, chosen.rule(guidance_scale))

    def watched(x: Tensor, t: Tensor) -> Tensor:
        watch()
        return field(x, t)

    watched.jumps = field.jumps
    about = dict(
        quality=quality,
        guidance=chosen.written(f"{guidance_scale:g}"),
        guided=list(chosen.guided),
        prompts=len(prompts),
        seed=seed,
    )
    with torch.no_grad():
        return samplers.pilot(watched, noise, chosen.steps, solver, looks=looks, settings=about)


def scene_prompts(count: int) -> list[str]:
    """Returns captions of the training split, taking the categories in turn."""
    categories = SPLITS["train"]
    return [prompt("train", categories[i % len(categories)], i).text for i in range(count)]
