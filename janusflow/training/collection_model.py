"""Training on a collection's folder: the initial model of a recipe, and its samples."""

from pathlib import Path

import torch
from tokenizers import normalizers

from janusflow.data.collections.batches import (
    CollectionBatches,
    as_input,
    read_items,
    read_pixels,
    vocabulary,
)
from janusflow.models.autoencoder import PatchAutoencoder
from janusflow.models.autoencoder_loading import load_vae
from janusflow.models.janusflow.configuration import JanusFlowConfig
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.janusflow.tokenizer import build_tokenizer
from janusflow.models.processor_files import tokenizer_in
from janusflow.training.init_checkpoint import write
from janusflow.training.recipes import Recipe

LEAST = 4  # concepts that use a word which becomes a token


def first_model(recipe: Recipe, folder: Path, base: Path) -> None:
    """Writes a recipe's initial model into `base`, keeping files that exist.

    It consists of a tokenizer of the captions' words, a linear autoencoder fitted to the images,
    and random weights.
    """
    if (base / "model.safetensors").exists():
        return
    items = read_items(folder, "train", recipe.spoken)
    pixels = read_pixels(folder, items)
    if (size := pixels.shape[-1]) != recipe.image_size:
        raise ValueError(
            f"{str(folder)!r} holds images of {size} pixels, the recipe takes {recipe.image_size}; "
            f"write it with --size {recipe.image_size}, or set image_size={size}"
        )
    build_tokenizer(
        base,
        vocabulary(items, LEAST),
        image_size=recipe.image_size,
        num_image_tokens=recipe.config(vocab_size=1).vision.tokens,
        system_prompt="",
    )
    tokenizer = tokenizer_in(base)
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.save(str(base / "tokenizer.json"))
    autoencoder = PatchAutoencoder(recipe.latent_channels, whitening=recipe.whitening)
    autoencoder.fit(as_input(pixels))
    autoencoder.save_pretrained(base / "vae")
    torch.manual_seed(recipe.seed)
    write(JanusFlowModel(recipe.config(tokenizer.get_vocab_size())), base)


def batches(base: Path, recipe: Recipe, folder: Path, split: str = "train") -> CollectionBatches:
    """Returns the samples of a split of the folder, for the model in `base`."""
    autoencoder = load_vae(base, None).requires_grad_(False)
    tokenizer = tokenizer_in(base)
    tokens = JanusFlowConfig.from_pretrained(base).vision.tokens
    return CollectionBatches(
        folder, tokenizer, autoencoder, recipe.seed, tokens, split, recipe.spoken
    )
