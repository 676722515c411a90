"""Reconstruction alignment: the model generates an image that its own vision encoder reads."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from janusflow.data.samples import Sample
from janusflow.models.janusflow.processing import JanusFlowProcessor
from janusflow.training import timestep_sampling
from janusflow.training.objectives.flow import Flow
from janusflow.training.objectives.network import Batch, Network
from janusflow.training.objectives.objective import Context, objective

STREAM = 11  # of random numbers, apart from those of other objectives


@objective(name="reca")
class RecA(Flow):
    """|v(x_t, t | instruction, encoder(image)) - (image - noise)|^2.

    This is the flow loss with the image itself in the prompt, read by the vision encoder, in place
    of its caption. `share` is the fraction of samples that are reconstructed; the others keep their
    captions. Xie et al. 2025, arXiv 2509.07295.
    """

    losses = ("reca",)

    def __init__(
        self, context: Context, *, instruction: str = "a picture of this", share: float = 1.0
    ):
        super().__init__(context)
        if not instruction.strip() or not 0 < share <= 1:
            raise ValueError(
                f"objective.instruction is {instruction!r:.60} and objective.share {share!r}; "
                "expected a text, and a share above 0 and at most 1"
            )
        self.instruction, self.share = instruction, share
        self.prompt: dict[str, Tensor] = {}

    def begin(self, folder: Path) -> None:
        """Prepares the instruction's tokens with an image, as the model's processor does."""
        processor = JanusFlowProcessor.from_pretrained(folder)
        side = processor.image_processor.image_size
        found = processor.prompt(self.instruction, [[Image.new("RGB", (side, side))]])
        self.prompt = {name: found[name][0] for name in ("input_ids", "image_token_mask")}

    def generate(self, samples: Sequence[Sample], rows: Sequence[int], step: int) -> list[Sample]:
        pairs = zip(samples, rows, strict=True)
        return [self._shown(one) if self._chosen(step, row) else one for one, row in pairs]

    def _chosen(self, step: int, row: int) -> bool:
        drawn = timestep_sampling.generator(self.context.stage.seed, step, STREAM, row)
        return float(torch.rand((), generator=drawn)) < self.share

    def _shown(self, sample: Sample) -> Sample:
        """Returns the sample with a prompt that shows the image to generate."""
        if sample.pixel_values is None:
            raise ValueError(
                f"{sample.name!r} has no pixels, which reca shows to the understanding encoder; "
                "train without a cache of latents"
            )
        return replace(sample, shown=sample.pixel_values, **self.prompt)

    def __call__(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        return {"reca": super().__call__(net, batch)["flow"]}

    def weights(self, step: int) -> dict[str, float]:
        return {"reca": self.context.stage.flow}
