"""Compares solvers on a model's guided velocity, with `samplers.benchmark`."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm

from samplers import count, guidance, sample, trajectory
from samplers.benchmark import equal_calls as benchmark
from samplers.benchmark.summary import Report
from samplers.core import Velocity
from samplers.fields import widest


@torch.no_grad()
def run(
    pipe,
    prompts: Sequence[str],
    guidance_scale: guidance.Rule | float = 2.0,
    *,
    samples: int = 4,
    seed: int = 0,
    reference: int = 256,
    pilot: bool = False,
    **options,
) -> Report:
    """Measures solvers and baselines on the field of these prompts, from `samples` noises each.

    The reference is rk4 with `reference` evaluations in float64; the RMS distance to the result of
    half as many is in the report's protocol, and smaller errors mean nothing. `options` go to
    `samplers.benchmark.run` (calls, solvers, others, name, ...). Raises ValueError for arguments
    that do not fit.
    """
    if samples < 1:
        raise ValueError(f"samples is {samples}; expected at least 1")
    if reference < 16 or reference % 8:
        raise ValueError(
            f"reference is {reference} evaluations; expected a multiple of 8 from 16, such as 256"
        )
    noise = pipe.prepare_latents(
        samples * len(prompts), None, None, torch.Generator().manual_seed(seed)
    )
    v = pipe.field(prompts, guidance_scale, num_images_per_prompt=samples)
    truth, doubt = _truth(v, noise, reference)
    look = noise if pilot else False  # whole: the field has one row of prompt for each
    watch = partial(tqdm, desc="trials", disable=None)  # silent where nobody looks
    report = benchmark.run(v, noise, reference=truth, pilot=look, watch=watch, **options)
    report.protocol.update(
        prompts=list(prompts),
        seed=seed,
        reference=f"rk4, {reference} calls; {reference // 2} calls end {doubt:.1e} from it",
        network_evaluations_per_call=_reads(v, noise),
    )
    return report


def _truth(v: Velocity, noise: Tensor, calls: int) -> tuple[Tensor, float]:
    """Returns the endpoints, and their RMS distance from those of half as many evaluations."""
    coarse, fine = (_end(v, noise.to(widest(noise.device)), n) for n in (calls // 2, calls))
    return fine, float((fine - coarse).square().mean().sqrt())


def _end(v: Velocity, noise: Tensor, calls: int) -> Tensor:
    path = trajectory(v, noise, calls, "rk4")
    for _, x in tqdm(path, total=calls // 4 + 1, desc=f"{calls} calls of rk4", disable=None):
        end = x
    return end


def _reads(v: Velocity, noise: Tensor) -> float:
    """Returns the mean number of rows that the network evaluates per call of v."""
    counted = count(v)
    sample(counted, noise, 8, "euler")
    return counted.calls / 8
