"""The model on batches of one fixed shape: prompts padded on the right, one sample a row."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from janusflow.models import latents as coding
from janusflow.models.janusflow.packing import image_positions
from janusflow.training import losses, timestep_sampling
from studies.scenes_on_gpu.pool import ANSWERS, PROMPT


@dataclass(frozen=True)
class Prompts:
    """Prompts (B, PROMPT) as ids padded with 0, and their lengths (B,)."""

    ids: Tensor
    lengths: Tensor


def velocity(
    model: nn.Module,
    prompts: Prompts,
    x: Tensor,
    t: Tensor,
    dropped: Tensor,
    target: Tensor | None = None,
) -> Tensor:
    """v(x, t), or the mean velocity to the time `target`, (B, c, h, w), as the packed forward pass.

    Of a prompt that is `dropped` (B,) only BOS is seen, and the image keeps its positions.
    """
    features, times, sequence = model.enter(x, t)
    words = model.get_input_embeddings()(prompts.ids)
    place = torch.arange(PROMPT, device=x.device)
    seen = (place < prompts.lengths[:, None]) & ((place == 0) | ~dropped[:, None])
    seen = nn.functional.pad(seen, (0, sequence.shape[1]), value=True)
    causal = torch.ones(seen.shape[1], seen.shape[1], dtype=torch.bool, device=x.device).tril()
    after = _after(*features.shape[2:], model.config.image_grid, x.device)
    positions = torch.cat(
        [place.expand(len(x), -1), prompts.lengths[:, None] + after.expand(len(x), -1)], dim=1
    )
    hidden = model.language_model.model(
        inputs_embeds=torch.cat([words, sequence.to(words.dtype)], dim=1),
        attention_mask=(causal & seen[:, None])[:, None],
        position_ids=positions,
        use_cache=False,
    ).last_hidden_state[:, PROMPT:]
    end_time = times if target is None else model.decoder_times(target)
    return model.leave(hidden, features, end_time)


@cache
def _after(height: int, width: int, grid: int | None, device: torch.device) -> Tensor:
    """Positions after the prompt; kept, as a CUDA graph may not copy from the CPU."""
    return image_positions(height, width, grid).to(device)


def answers(model: nn.Module, images: Tensor, ids: Tensor, labels: Tensor, place: tuple) -> Tensor:
    """Mean cross-entropies of the answers, (B,): pixels (B, 3, S, S), ids and labels (B, ANSWERS).

    `place` is the first place and the number of the image's tokens.
    """
    first, count = place
    words = model.get_input_embeddings()(ids)
    shown = model.image_embeds(images[:, None])
    embeds = torch.cat([words[:, :first], shown, words[:, first + count :]], dim=1)
    causal = torch.ones(ANSWERS, ANSWERS, dtype=torch.bool, device=ids.device).tril()
    hidden = model.language_model.model(
        inputs_embeds=embeds,
        attention_mask=causal.expand(len(ids), 1, -1, -1),
        position_ids=torch.arange(ANSWERS, device=ids.device).expand(len(ids), -1),
        use_cache=False,
    ).last_hidden_state
    return losses.next_token(model.language_model.lm_head(hidden), labels)


def pixels(images: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S, S) in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def encode(vae: nn.Module, images: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 -> scaled latents (B, c, h, w)."""
    with torch.no_grad():
        return coding.encode(vae, pixels(images))


def logit_normal(count: int, mean: float, std: float, device: torch.device) -> Tensor:
    """Stratified times (B,) with logit(t) ~ N(mean, std^2), rising."""
    u = (torch.arange(count, device=device) + torch.rand(count, device=device)) / count
    return timestep_sampling.logit_normal(u.clamp(1e-5, 1 - 1e-5), mean, std)
