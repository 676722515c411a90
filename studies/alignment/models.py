"""What all runs of the alignment study share: its numbers, its images, its fresh models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from janusflow.models.autoencoder import PatchAutoencoder
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.janusflow.vision import VisionEncoder
from janusflow.models.prompt_cache import PromptCache
from janusflow.training import vision_pretraining
from janusflow.training.recipes import Recipe
from studies.alignment import easy_scenes
from studies.alignment.easy_scenes import Pool


@dataclass(frozen=True, kw_only=True)
class Study:
    """Every number of the experiment, the same in all its arms."""

    steps: int = 400
    batch: int = 32
    pool: int = 4096  # training scenes
    lr: float = 3e-3  # of AdamW
    matrix_lr: float = 0.02  # of Muon
    warmup: int = 30
    decay_from: float = 0.7  # share of the steps after which the rate falls to zero, linearly
    ema: float = 0.99
    density_mean: float = -1.0  # of logit(t)
    density_std: float = 1.2
    prompt_drop: float = 0.1
    every: int = 50  # steps between measurements
    held_out: int = 240  # scenes for the flow loss
    images: int = 8  # of each prompt, for the score
    calls: int = 13  # of the sampler
    guidance: float = 2.0
    hidden: int = 96
    blocks: int = 4
    channels: int = 48

    @property
    def recipe(self) -> Recipe:
        """Returns the geometry; the vision encoder's is the packaged model's."""
        return Recipe(
            hidden=self.hidden, blocks=self.blocks, channels=self.channels, mlp=self.hidden * 8 // 3
        )


@dataclass
class Lab:
    """What all runs of a study share."""

    study: Study
    encoder: nn.Module  # the pretrained vision encoder
    autoencoder: PatchAutoencoder
    train: Pool
    test: Pool
    texts: dict[str, Tensor]
    vocabulary: int
    features: dict[str, Tensor]  # of the training images, by teacher

    def model(self, seed: int) -> JanusFlowModel:
        torch.manual_seed(seed)
        model = JanusFlowModel(self.study.recipe.config(self.vocabulary))
        model.vision_und_enc_model.load_state_dict(self.encoder.state_dict())
        model.requires_grad_(True)
        model.vision_und_enc_model.requires_grad_(False)
        return model


def prepare(study: Study, folder: Path, encoder: nn.Module) -> Lab:
    made = easy_scenes.autoencoder(study.recipe.latent_channels)
    texts, vocabulary = easy_scenes.prompts(folder)
    train = easy_scenes.pool("train", study.pool, made)
    test = easy_scenes.pool("test", study.held_out, made)
    return Lab(study, encoder, made, train, test, texts, vocabulary, {})


def pretrained(path: Path | None, recipe: Recipe) -> nn.Module:
    """Returns the packaged vision encoder, or that of a file, which is trained first if missing."""
    from safetensors.torch import load_file

    if path is None:
        return JanusFlowModel.from_pretrained("janusflow/scenes").float().vision_und_enc_model
    if not path.exists():
        vision_pretraining.save(vision_pretraining.pretrain(recipe)[0], path)
    encoder = VisionEncoder(recipe.config(vocab_size=1).vision)
    encoder.load_state_dict(load_file(path))
    return encoder.requires_grad_(False).eval()


def prompt_of(lab: Lab, model: JanusFlowModel, kinds: np.ndarray, dropped: Tensor) -> PromptCache:
    """Returns the prompts of these kinds; a dropped one keeps BOS and its positions."""
    found = model.encode_prompt(**lab.texts)[torch.from_numpy(kinds)]
    first = nn.functional.one_hot(found.seen.long().argmax(dim=1), found.seen.shape[1]).bool()
    return replace(found, mask=torch.where(dropped[:, None], first, found.seen))
