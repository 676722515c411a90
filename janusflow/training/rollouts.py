"""Generates images with the model in training: from prompts as token ids to latents and pixels."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

import samplers
from janusflow.data.samples import Sample
from janusflow.models import latents
from janusflow.models.prompt_cache import PromptCache

AT_ONCE = 64  # images of a batch of sampling


def padded(samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """Returns ids and mask (B, L) of the samples' prompts, padded on the left."""
    longest = max(len(s.input_ids) for s in samples)
    ids = torch.zeros(len(samples), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, sample in enumerate(samples):
        ids[row, longest - len(sample.input_ids) :] = sample.input_ids
        mask[row, longest - len(sample.input_ids) :] = 1
    return ids, mask


def prompts(model: nn.Module, samples: Sequence[Sample]) -> PromptCache:
    """Returns the prompt cache of the samples, including the source images of edits."""
    place = next(model.parameters()).device
    ids, mask = (x.to(place) for x in padded(samples))
    shown = [sample.shown for sample in samples if sample.shown is not None]
    if not shown:
        return model.encode_prompt(ids, mask)
    places = torch.zeros_like(ids, dtype=torch.bool)
    for row, sample in enumerate(samples):
        if sample.shown is not None:
            places[row, ids.shape[1] - len(sample.input_ids) :] = sample.image_token_mask.to(place)
    pixels = torch.cat(shown).to(place)
    return model.encode_prompt(ids, mask, pixel_values=pixels, image_token_mask=places)


def field(model: nn.Module, samples: Sequence[Sample], guidance: object = 1.0):
    """Returns the guided velocity (x, t) -> v of the samples' prompts, for anything in `samplers`.

    `guidance` is a scale or a rule of `samplers.guidance`.
    """
    cond = prompts(model, samples)
    both = PromptCache.cat([cond, cond.first()])
    pair = samplers.guidance.batched_pair(_velocity(model, both), _velocity(model, cond))
    return samplers.guide(pair, guidance)


def flow_map(model: nn.Module, samples: Sequence[Sample]):
    """Returns the mean velocity u(x, t, s) for the samples' prompts, of a flow map."""
    prompt = prompts(model, samples)

    def mean_velocity(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        t, s = (z.to(x.device, torch.float32).reshape(-1).expand(len(x)) for z in (t, s))
        return model.velocity(x, t, prompt, target=s)

    return mean_velocity


def _velocity(model: nn.Module, prompt: PromptCache):
    def velocity(x: Tensor, t: Tensor) -> Tensor:
        times = t.to(x.device, torch.float32).reshape(-1).expand(len(x))
        return model.velocity(x, times, prompt)

    return velocity


@torch.no_grad()
def paths(
    model: nn.Module,
    samples: Sequence[Sample],
    noise: Tensor,
    ts: Tensor,
    solver: object = "abm",
    guidance: object = 1.0,
) -> Tensor:
    """Returns the states (B, S, c, h, w) at the times ts (S,), starting from noise (B, c, h, w)."""
    found = []
    with evaluating(model):
        for start in range(0, len(samples), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            v = field(model, samples[part], guidance)
            x = noise[part].to(next(model.parameters()).device)
            states = [state for _, state in samplers.trajectory(v, x, ts, solver)]
            found.append(torch.stack(states, dim=1))
    return torch.cat(found)


@torch.no_grad()
def pixels_of(vae: nn.Module, states: Tensor) -> Tensor:
    """Decodes scaled latents (B, c, h, w) to images (B, H, W, 3) uint8 on the CPU, as saved."""
    place = next(vae.parameters(), states).device
    parts = [latents.decode(vae, one) for one in states.to(place).split(AT_ONCE)]
    pixels = torch.cat(parts).clamp(-1, 1)
    return ((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A context in which the model is in evaluation mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
