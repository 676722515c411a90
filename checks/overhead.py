"""Measures what a step costs outside the network: python -m checks.overhead [--wide]

A step is what one more step adds to a call of the pipeline (guided Euler, one image, latents
out). "outside" is that without the time inside the network's parts, the hooks that measure it
included; "stub" is a step whose velocity is a tensor that lies ready. `--wide` takes the 1.3B's
widths with 2 blocks and fresh weights in the packaged model's place.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from statistics import median

import torch

from janusflow import JanusFlowPipeline
from janusflow.bench.speed import wide
from samplers import command_line

TEXT = "a red circle left of a blue square"


class Inside:
    """Adds up the seconds inside the network's parts while it is entered."""

    def __init__(self, model):
        self.parts = [
            model.vision_gen_enc_model,
            model.vision_gen_enc_aligner,
            model.language_model.model,
            model.vision_gen_dec_aligner_norm,
            model.vision_gen_dec_aligner,
            model.vision_gen_dec_model,
        ]
        self.seconds = 0.0

    def __enter__(self):
        self.hooks = [part.register_forward_pre_hook(self._starts) for part in self.parts]
        self.hooks += [part.register_forward_hook(self._ends) for part in self.parts]
        return self

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()

    def _starts(self, *_):
        self.began = time.perf_counter()

    def _ends(self, *_):
        self.seconds += time.perf_counter() - self.began


@contextmanager
def stubbed(model, like: torch.Tensor):
    """Returns the model with a velocity that costs nothing."""
    ready = {n: torch.zeros(n, *like.shape[1:]) for n in (1, 2)}
    model.velocity = lambda latents, t, prompt: ready[len(latents)]  # noqa: ARG005
    try:
        yield
    finally:
        del model.velocity


def pipeline(is_wide: bool) -> tuple[JanusFlowPipeline, torch.Tensor]:
    """Returns the pipeline and one image's noise."""
    pipe = JanusFlowPipeline.from_pretrained("janusflow/scenes")
    if is_wide:
        pipe = JanusFlowPipeline(wide(2), pipe.processor, pipe.vae)
    pipe.set_progress_bar_config(disable=True)
    sizes, side = pipe.model.config.generation, pipe.default_size // 8
    return pipe, torch.randn(1, sizes.latent_channels, side, side)


def measure(is_wide: bool, rounds: int) -> dict[str, float]:
    """Returns median milliseconds of a step: all of it, outside the network, and with the stub."""
    pipe, noise = pipeline(is_wide)
    few, many = (1, 3) if is_wide else (3, 33)

    def run(steps: int) -> float:
        started = time.perf_counter()
        pipe(TEXT, num_inference_steps=steps, latents=noise, output_type="latent")
        return time.perf_counter() - started

    def split(steps: int) -> tuple[float, float]:
        with Inside(pipe.model) as inside:
            total = run(steps)
        return total, total - inside.seconds

    found = {"step": [], "outside": [], "stub": []}
    split(few)  # warms up
    for _ in range(rounds):
        (short, little), (long, much) = split(few), split(many)
        found["step"].append(long - short)
        found["outside"].append(much - little)
        with stubbed(pipe.model, noise):
            found["stub"].append((run(many + 300) - run(many)) / 300 * (many - few))
    return {name: 1e3 * median(values) / (many - few) for name, values in found.items()}


def main() -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "--wide", action="store_true", help="Measures the 1.3B's widths with random weights."
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="Repeats the measurement this many times."
    )
    asked = parser.parse_args()
    found = measure(asked.wide, asked.rounds)
    for name, value in found.items():
        print(f"{name:<8}{value:10.3f} ms{value / found['step']:9.2%} of a step")


if __name__ == "__main__":
    main()
