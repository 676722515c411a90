"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[str, typer.Option(help="Packaged model, folder or hub id.")]
Vae = Annotated[str | None, typer.Option(help="Autoencoder, if the model's folder has no vae/.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps, ...")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16, float16; int8 weights.")]
Steps = Annotated[int, typer.Option(help="Steps of the sampler.")]
Guidance = Annotated[
    str, typer.Option(help="A weight, 1 for none, or a rule: guidance_interval:4,0.1,0.9")
]
Sampler = Annotated[str, typer.Option(help="A solver of `samplers`.")]
Reuse = Annotated[
    float | None, typer.Option(help="Skip blocks where less than this share changes: 0.1; off.")
]
Quality = Annotated[str, typer.Option(help="exact, high, fast or draft.")]
OwnSteps = Annotated[int | None, typer.Option(help="Steps; the quality's own.")]
OwnSampler = Annotated[str | None, typer.Option(help="A solver; the quality's own.")]
Grid = Annotated[
    str | None, typer.Option(help="A grid of `samplers`, '0 0.3 1', or a pilot's .json.")
]
Lora = Annotated[str | None, typer.Option(help="Folder or hub id of an adapter.")]
DEFAULT = "janusflow/scenes"


def guidance(text: str):
    """A number, or a rule of `samplers.guidance` by name."""
    from samplers import guidance as rules

    try:
        return rules.cfg(float(text))
    except ValueError:
        if text.split(":")[0] in rules.RULES:
            return rules.parse(text)
    raise ValueError(
        f"guidance {text!r} is not a finite number or a rule; choose 1 for none, or one of "
        f"{', '.join(rules.RULES)}, as in guidance_interval:4,0.1,0.9"
    )
