"""Training samples of the world of scenes; the samples of a step are a pure function of the
step.
"""

from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from janusflow.data.drawing import Texts, share
from janusflow.data.samples import Sample
from janusflow.models import latents as coding
from janusflow.models.autoencoder import PatchAutoencoder
from janusflow.scenes.patches import pixels
from janusflow.scenes.questions import TEMPLATES, ask
from janusflow.scenes.shapes import render_batch
from janusflow.scenes.world import SPLITS, Scene, generator, scene

TURNS = 4  # questions asked about one image, at most
MIXED = 0.8  # share of the images that are asked about whose category is "mixed"
NOISE = 0.1  # largest deviation of the noise on them
IMAGE_TOKENS = 36  # of a 96 x 96 image in patches of 16
FAR = 2**32  # steps between the scenes of two seeds: no run takes so many


@dataclass(frozen=True)
class Batches(Texts):
    """Draws training samples from the split "train"; texts are formatted by the processor."""

    tokenizer: Tokenizer
    autoencoder: PatchAutoencoder
    categories: tuple[float, ...] = (1,) * len(SPLITS["train"])  # shares of SPLITS["train"]
    templates: tuple[float, ...] = (1,) * len(TEMPLATES)  # shares of TEMPLATES
    seed: int = 0  # of other scenes, so that a run that starts from another does not see its again

    def draw(
        self,
        step: int,
        rank: int,
        world: int,
        counts: dict[str, int],
        start: dict[str, int] | None = None,
    ) -> list[Sample]:
        """Returns one process's equal share of the samples of a step, generation samples first.

        Images continue where earlier steps ended: at `start["generation"]`, by default step times
        count.
        """
        made, asked = counts.get("generation", 0), counts.get("understanding", 0)
        before = step * made if start is None else start.get("generation", 0)
        before += self.seed % 2**31 * FAR * made
        step += self.seed % 2**31 * FAR
        images, rows = share(made, rank, world), share(asked, rank, world)
        return [
            *self.images(range(before + images.start, before + images.stop)),
            *self.questions(step, asked)[rows.start : rows.stop],
        ]

    def images(self, indices: range) -> list[Sample]:
        """Captions with latents (c, 12, 12) and pixels (1, 3, 96, 96) of training scenes."""
        scenes = [self.training_scene(i) for i in indices]
        if not scenes:
            return []
        images = pixels(render_batch([s.objects for s in scenes]))
        with torch.no_grad():
            latents = coding.encode(self.autoencoder, images)
        return [
            Sample(
                kind="generation",
                input_ids=self.prompt_ids(scene.caption),
                latents=latent,
                pixel_values=image[None],
                request=scene.prompt,
                name=f"scene {index}",
            )
            for index, scene, latent, image in zip(indices, scenes, latents, images, strict=True)
        ]

    def questions(self, step: int, count: int) -> list[Sample]:
        """Returns `count` images with slight noise, each with several questions."""
        if not count:
            return []
        rng = generator("train", step, "questions")
        scenes = [
            scene("train", int(rng.integers(2**31)), "mixed" if rng.random() < MIXED else None)
            for _ in range(count)
        ]
        images = pixels(render_batch([s.objects for s in scenes]))
        level = NOISE * torch.from_numpy(rng.random((count, 1, 1, 1))).float()
        images += level * torch.randn(images.shape, generator=torch.Generator().manual_seed(step))
        return [self.answered(one, image, rng) for one, image in zip(scenes, images, strict=True)]

    def answered(self, scene: Scene, image: Tensor, rng: np.random.Generator) -> Sample:
        """Returns a sample of several questions about one image."""
        fields = self.asked(scene, rng)
        fields |= {"pixel_values": image[None], "name": scene.caption}
        return Sample(kind="understanding", **fields)

    def asked(self, scene: Scene, rng: np.random.Generator) -> dict[str, Tensor]:
        """Returns the text fields of a sample of several questions about a scene's image."""
        names = list(TEMPLATES)
        asked = [ask(scene, names[_weighted(rng, self.templates)], rng) for _ in range(TURNS)]
        asked = [q for q in asked if q] or [ask(scene, "caption", rng)]
        return self.conversation([(q.text, q.answer) for q in asked], IMAGE_TOKENS)

    def training_scene(self, index: int) -> Scene:
        """Returns training scene number `index`; its category is drawn by the shares."""
        names, rng = SPLITS["train"], generator("train", index, "category")
        return scene("train", index, names[_weighted(rng, self.categories)])


def _weighted(rng: np.random.Generator, weights: tuple[float, ...]) -> int:
    shares = np.cumsum(weights)
    return int(np.searchsorted(shares, shares[-1] * rng.random(), side="right"))
