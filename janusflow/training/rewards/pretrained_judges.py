"""Rewards by pretrained networks: CLIP or SigLIP, and classifiers of image aesthetics.

A reward is named with its weights, a folder or hub id in transformers' layout: `clip:PATH`,
`aesthetic:PATH`; classifiers of timm need timm. Weights are loaded once per process. The path must
not contain + or *.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from PIL import Image
from torch import Tensor, nn

from janusflow.training.rewards.reward import Graded, Reward, judge
from janusflow.utils.hub import locate
from janusflow.utils.text import explained, printable

FILES = ("*.json", "*.safetensors", "*.txt")  # never a pickle, never code
AT_ONCE = 32  # images
LIKED = ("aesthetic", "good", "high", "beautiful")  # labels of a classifier, any of them
MOST = 10.0  # the best score of a regression

Judged = Callable[[list[Image.Image], list[str]], Tensor]


@judge
def clip(path: str) -> Reward:
    """(1 + cosine of image and text) / 2 by a CLIP or SigLIP, in [0, 1]; Hessel et al. 2021, arXiv
    2104.08718.

    Raises ValueError for another network.
    """
    model, processor = loaded(path, "AutoModel", "AutoProcessor")
    if not hasattr(model, "get_text_features"):
        raise ValueError(
            f"clip:{path} is a {type(model).__name__}; expected a CLIP or SigLIP, which embeds "
            "images and texts"
        )

    def judged(images: list[Image.Image], texts: list[str]) -> Tensor:
        how = dict(padding="max_length", truncation=True, return_tensors="pt")
        inputs = processor(images=images, text=texts, **how)
        words = {k: inputs[k] for k in ("input_ids", "attention_mask") if k in inputs}
        seen = _embedding(model.get_image_features(pixel_values=inputs["pixel_values"]))
        return (1 + torch.cosine_similarity(seen, _embedding(model.get_text_features(**words)))) / 2

    return _in_parts(judged)


@judge
def aesthetic(path: str) -> Reward:
    """The aesthetic score of an image by a classifier, in [0, 1].

    It is the probability of the label "aesthetic", "good", "high" or "beautiful"; for a network
    with a single output from 0 to 10 it is that divided by 10. Raises ValueError for other labels.
    """
    model, processor = loaded(path, "AutoModelForImageClassification", "AutoImageProcessor")
    names = {i: name.lower() for i, name in model.config.id2label.items()}
    liked = [i for i, name in names.items() if name in LIKED]
    if len(names) > 1 and not liked:
        raise ValueError(
            f"aesthetic:{path} tells {printable(', '.join(names.values()), 80)} apart; expected "
            f"one number, or one of the labels {', '.join(LIKED)}"
        )

    def judged(images: list[Image.Image], texts: list[str]) -> Tensor:  # noqa: ARG001
        logits = model(**processor(images=images, return_tensors="pt")).logits.float()
        if len(names) > 1:
            return logits.softmax(dim=-1)[:, liked].sum(dim=-1)
        return (logits[:, 0] / MOST).clamp(0, 1)

    return _in_parts(judged)


@lru_cache
def loaded(path: str, model: str, processor: str) -> tuple[nn.Module, object]:
    """Returns a network and processor of transformers. Raises ValueError without them."""
    import transformers

    folder = locate(path, FILES)
    how = dict(local_files_only=True, trust_remote_code=False)
    with explained(
        f"{path!r} is not a network that transformers' {model} reads",
        "name a folder with config.json, safetensors and a processor",
    ):
        network = getattr(transformers, model).from_pretrained(
            folder, use_safetensors=True, dtype=torch.float32, **how
        )
        return network.eval(), getattr(transformers, processor).from_pretrained(folder, **how)


def _embedding(found) -> Tensor:
    """Returns the embedding, which some versions of transformers wrap in an output."""
    return found if isinstance(found, Tensor) else found.pooler_output


def _in_parts(judged: Judged) -> Reward:
    """Computes a reward of images with texts in parts of limited size."""

    @torch.no_grad()
    def each(graded: Graded) -> Tensor:
        images = [Image.fromarray(one) for one in graded.pixels]
        texts = [getattr(one, "text", None) or "" for one in graded.requests]
        starts = range(0, len(images), AT_ONCE)
        parts = [judged(images[i : i + AT_ONCE], texts[i : i + AT_ONCE]) for i in starts]
        return torch.cat(parts).float().cpu()

    return each
