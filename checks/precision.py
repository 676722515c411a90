"""Measures the error of float16, bfloat16 and float32 against float64 on the packaged model.

    python -m checks.precision

The columns are one guided velocity at t = 0.5, and the latents and images after Euler steps with
guidance 2. An error is the RMS of the difference over the RMS of the float64 result; for images it
is the largest difference, of 255.
"""

import torch

from janusflow import JanusFlowPipeline
from samplers import command_line

PROMPTS = ["a red circle", "two blue squares"]
TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@torch.no_grad()
def answers(dtype: torch.dtype, steps: int = 30) -> tuple:
    """Returns (v, latents, image) in float64 of a network in this dtype, on the same noise."""
    exact = dtype == torch.float64  # which pipelines do not load
    pipe = JanusFlowPipeline.from_pretrained(
        "janusflow/scenes", dtype=torch.float32 if exact else dtype
    )
    if exact:
        pipe.model.double()
        pipe.vae.double()
    pipe.set_progress_bar_config(disable=True)
    shape = (2, pipe.model.config.generation.latent_channels, 12, 12)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = noise if exact else noise.float()
    v = pipe.field(PROMPTS, 2.0)(noise, torch.tensor(0.5, dtype=torch.float64))
    options = dict(latents=noise, num_inference_steps=steps)
    x = pipe(PROMPTS, output_type="latent", **options).images
    image = pipe(PROMPTS, output_type="pt", **options).images
    return tuple(part.double() for part in (v, x, image))


def table(steps: int = 30) -> list[tuple[str, float, float, float]]:
    """Returns (dtype, error of v, of latents, of images) for each of TYPES."""
    exact = answers(torch.float64, steps)
    rows = []
    for dtype in TYPES:
        found = answers(dtype, steps)
        v, x = (float((a - b).norm() / b.norm()) for a, b in zip(found[:2], exact, strict=False))
        rows.append((str(dtype)[6:], v, x, float((found[2] - exact[2]).abs().max() * 255)))
    return rows


if __name__ == "__main__":
    told = "Takes this many Euler steps. The default is 30."
    given = command_line.positionals(__doc__, steps=(int, 30, told))
    print("| network | v | latents | image, of 255 |\n|---|---|---|---|")
    for name, *errors in table(**given):
        print(f"| {name} | " + " | ".join(f"{error:.1e}" for error in errors) + " |")
