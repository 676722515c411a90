"""A differentiable reward: what a frozen model answers about generated images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from janusflow.data.preparation import conversation
from janusflow.data.samples import Sample
from janusflow.models import latents as coding
from janusflow.models.janusflow.packed_forward import forward
from janusflow.scenes.questions import prompt_questions

NOISE = 0.1  # largest deviation of the noise on judged images, as on those of training


def answer_loss(
    model: nn.Module,
    vae: nn.Module,
    processor,
    latents: Tensor,
    samples: Sequence[Sample],
    keys: Sequence[torch.Generator],
    **packing,
) -> Tensor:
    """Mean -ln p of the right answers' tokens about each image, (G,), with a gradient to latents.

    The questions are those of the sample's `request`, in an order drawn by its generator; they form
    one conversation about the decoded image, to which noise is added so that the gradient does not
    depend on single pixels. Gradients of rewards through the decoder: ReFL (Xu et al. 2023, arXiv
    2304.05977) and DRaFT (Clark et al. 2024, arXiv 2309.17400). The reward is the logarithm of
    VQAScore (Lin et al. 2024, arXiv 2404.01291).
    """
    pixels = coding.decode(vae, latents).clamp(-1, 1)
    level = [NOISE * torch.rand(1, generator=key) * _normal(pixels, key) for key in keys]
    pixels = pixels + torch.stack(level).to(pixels)
    pixels = _normalized(processor.image_processor, pixels)
    shown = [
        _asked(processor, sample, image[None], key)
        for sample, image, key in zip(samples, pixels, keys, strict=True)
    ]
    return forward(model, shown, **packing).next_token()


def _normal(pixels: Tensor, key: torch.Generator) -> Tensor:
    return torch.randn(pixels.shape[1:], generator=key)


def _normalized(image_processor, pixels: Tensor) -> Tensor:
    """Resizes and normalises pixels (B, 3, H, W) in [-1, 1] as the image processor does."""
    side = image_processor.image_size
    if pixels.shape[-2:] != (side, side):
        pixels = nn.functional.interpolate(
            pixels, (side, side), mode="bicubic", antialias=True, align_corners=False
        )
    if not image_processor.do_normalize or image_processor.image_mean is None:
        return (pixels + 1) / 2
    mean, std = (
        torch.tensor(values).to(pixels)[:, None, None]
        for values in (image_processor.image_mean, image_processor.image_std)
    )
    return ((pixels + 1) / 2 - mean) / std


def _asked(processor, sample: Sample, image: Tensor, key: torch.Generator) -> Sample:
    """Returns the questions about a sample's image with the right answers, as in training."""
    atoms = prompt_questions(sample.request)
    order = torch.randperm(len(atoms), generator=key).tolist()
    turns = []
    for number, i in enumerate(order):
        tag = "" if number else f"{processor.image_tag}\n"
        turns.append({"role": "user", "content": tag + atoms[i][0]})
        turns.append({"role": "assistant", "content": atoms[i][1]})
    ids, labels, mask = conversation(processor, turns, 1)
    return Sample(
        kind="understanding",
        input_ids=ids,
        labels=labels,
        image_token_mask=mask,
        pixel_values=image,
        name=sample.name,
    )
