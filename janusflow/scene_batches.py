"""Training batches of the world of scenes, each a pure function of the step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from janusflow.autoencoder import PatchAutoencoder
from janusflow.questions import TEMPLATES, ask
from janusflow.scene_patches import pixels
from janusflow.scenes import SPLITS, Scene, generator, scene
from janusflow.shapes import render_batch
from janusflow.tokenizer import BOS, EOS, IMAGE, IMAGE_END, IMAGE_START, PAD

TURNS = 4  # questions asked about one picture, at most
IMAGE_TOKENS = 36  # of a 96 x 96 picture in patches of 16


@dataclass(frozen=True)
class Batches:
    """Draws from the split "train"; texts are formatted as the processor formats them."""

    tokenizer: Tokenizer
    autoencoder: PatchAutoencoder
    categories: tuple[float, ...] = (1,) * len(SPLITS["train"])  # shares of SPLITS["train"]
    templates: tuple[float, ...] = (1,) * len(TEMPLATES)  # shares of TEMPLATES

    def pictures(self, step: int, count: int) -> dict[str, Tensor]:
        """Latents (B, c, 12, 12), pixels (B, 3, 96, 96), and the captions' ids and mask (B, L)."""
        scenes = [self.training_scene(step * count + i) for i in range(count)]
        images = pixels(render_batch([s.objects for s in scenes]))
        with torch.no_grad():
            latents = self.autoencoder.encode(images).latent_dist.mode()
        rows = [[self._id(BOS), *self._ids(_turn(s.caption))] for s in scenes]
        return {
            "latents": latents * self.autoencoder.config.scaling_factor,
            "pixel_values": images,
            "input_ids": _padded(rows, self._id(PAD)),
            "attention_mask": _padded([[1] * len(row) for row in rows], 0),
        }

    def questions(self, step: int, count: int) -> dict[str, Tensor]:
        """A model's inputs for `count` pictures with several questions each, and `labels` (B, L)
        that hold the answers' ids and -100 elsewhere.
        """
        rng = generator("train", step, "questions")
        scenes = [
            scene("train", int(rng.integers(2**31)), "mixed" if rng.random() < 0.8 else None)
            for _ in range(count)
        ]
        images = pixels(render_batch([s.objects for s in scenes]))
        level = 0.1 * torch.from_numpy(rng.random((count, 1, 1, 1))).float()
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(step))
        rows, labels = zip(*(self._conversation(s, rng) for s in scenes), strict=True)
        ids = _padded(rows, self._id(PAD))
        return {
            "input_ids": ids,
            "labels": _padded(labels, -100),
            "attention_mask": _padded([[1] * len(row) for row in rows], 0),
            "pixel_values": images + level * noise,
            "image_token_mask": (ids == self._id(IMAGE)) | (ids == self._id(IMAGE_START)),
        }

    def training_scene(self, index: int) -> Scene:
        """Scene number `index` of the training, of a category drawn by the shares."""
        names, rng = SPLITS["train"], generator("train", index, "category")
        return scene("train", index, names[_weighted(rng, self.categories)])

    def _conversation(self, scene: Scene, rng: np.random.Generator) -> tuple[list, list]:
        """Ids and labels of several questions about one picture."""
        names = list(TEMPLATES)
        asked = [ask(scene, names[_weighted(rng, self.templates)], rng) for _ in range(TURNS)]
        asked = [q for q in asked if q] or [ask(scene, "caption", rng)]
        ids, labels = [self._id(BOS)], [-100]
        for i, q in enumerate(asked):
            picture = f"{IMAGE_START}{IMAGE * IMAGE_TOKENS}{IMAGE_END}\n" if i == 0 else ""
            known = self._ids(_turn(picture + q.text))
            answer = [*self._ids(f" {q.answer}"), self._id(EOS)]
            ids += known + answer
            labels += [-100] * len(known) + answer
        return ids, labels

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def _id(self, token: str) -> int:
        return self.tokenizer.token_to_id(token)


def _weighted(rng: np.random.Generator, weights: tuple[float, ...]) -> int:
    shares = np.cumsum(weights)
    return int(np.searchsorted(shares, shares[-1] * rng.random(), side="right"))


def _turn(text: str) -> str:
    """A user's turn and the opening of the answer, in the format `deepseek_old`."""
    return f"User: {text}\n\nAssistant:"


def _padded(rows: list[list[int]], value: int) -> Tensor:
    """Rows of different length as one tensor (B, L), filled up on the right."""
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])
