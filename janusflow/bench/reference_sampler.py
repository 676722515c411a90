"""The published sampler as the baseline of speed measurements.

It takes 30 Euler steps, reads the whole prompt again in each of them for both rows, and keeps state
and time in bfloat16. It is written from its description (Ma et al. 2024; docs/speed.md explains
what its code does). Nothing else in the package uses it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from janusflow.models.janusflow.modeling import JanusFlowModel


@torch.no_grad()
def sample(
    model: JanusFlowModel,
    input_ids: Tensor,
    attention_mask: Tensor,
    noise: Tensor,
    *,
    steps: int = 30,
    guidance_scale: float = 2.0,
    state: torch.dtype = torch.bfloat16,
) -> Tensor:
    """Returns the final latents (B, c, H, W) in dtype `state`, from noise of that shape and prompts
    (B, L).

    With `state=torch.float32` the result is that of Euler on the uniform grid.
    """
    text = model.get_input_embeddings()(input_ids.repeat(2, 1))  # conditional rows first
    seen = attention_mask.repeat(2, 1)
    blind = seen[len(noise) :]
    blind[:, 1:] = 0  # the unconditional rows see their first token alone, which is BOS
    first = attention_mask.argmax(1, keepdim=True)
    blind[:, 0] = 0
    blind.scatter_(1, first, 1)
    positions = (attention_mask.cumsum(1) - 1).clamp(min=0).repeat(2, 1)
    place = input_ids.device
    x, dt = noise.to(place, state), torch.tensor(1 / steps, dtype=state, device=place)
    for step in range(steps):
        clock = torch.full((2 * len(x),), 1000 * step / steps, dtype=state, device=place)
        t = clock.float() / 1000  # the published code rounds 1000 t, which the network sees
        cond, uncond = _velocity(model, text, seen, positions, x.repeat(2, 1, 1, 1), t).chunk(2)
        x = x + dt * (guidance_scale * cond - (guidance_scale - 1) * uncond).to(state)
    return x


def _velocity(model, text: Tensor, seen: Tensor, positions: Tensor, x: Tensor, t: Tensor):
    """Evaluates both rows through the whole network, including the prompt."""
    features, times = model.vision_gen_enc_model(x.to(model.dtype), t)
    tokens = model.vision_gen_enc_aligner(features.flatten(2).transpose(1, 2))
    own = torch.cat([times.embedding[:, None], tokens], dim=1)
    after = positions[:, -1:] + 1 + torch.arange(own.shape[1], device=own.device)
    hidden = model.language_model.model(
        inputs_embeds=torch.cat([text, own], dim=1),
        attention_mask=torch.cat([seen, seen.new_ones(own.shape[:2])], dim=1),
        position_ids=torch.cat([positions, after], dim=1),
        use_cache=False,
    ).last_hidden_state[:, -tokens.shape[1] :]
    y = model.vision_gen_dec_aligner(model.vision_gen_dec_aligner_norm(hidden))
    y = y.transpose(1, 2).unflatten(2, features.shape[2:])
    return model.vision_gen_dec_model(y, features, times)


def prompts(pipe, texts: Sequence[str], noise: Tensor, **options) -> Tensor:
    """Runs `sample` for a pipeline's texts, one image each, on the pipeline's device."""
    rows = pipe.processor.prompt(list(texts)).to(pipe.device)
    return sample(pipe.model, rows["input_ids"], rows["attention_mask"], noise, **options)
