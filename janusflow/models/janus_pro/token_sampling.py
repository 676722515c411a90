"""Generates an image token by token through transformers' own blocks.

What a step needs besides its token is computed before the first one: rotary embeddings, masks,
memory for keys and values. A prompt is read once for all its images, and the unconditional row once
for all prompts of one length.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from janusflow.models.janus_pro.kv_cache import Slots, padding, slots
from janusflow.models.prompt_cache import CACHE
from janusflow.utils import finite
from janusflow.utils.cpu.tall_linear import two_rows
from janusflow.utils.devices import execution_device

Ids = tuple[int, ...]
Combine = Callable[[Tensor, Tensor, float], Tensor]


def unconditional(prompt: Ids, pad: int) -> Ids:
    """Replaces all tokens but the first and the last by pad, as published; pads are attended to."""
    return (prompt[0], *[pad] * (len(prompt) - 2), prompt[-1])


@torch.inference_mode()
def draw(
    model,
    prompts: Sequence[Ids],
    against: Sequence[Ids] | None,
    combine: Combine,
    choose: Callable[[Tensor], Tensor],
) -> Iterator[Tensor]:
    """Yields the tokens (B,) of each place in reading order, for B prompts of any lengths.

    `against` are the negative prompts, one each, or None without guidance. combine(cond, uncond, t)
    returns the logits (B, codes), where t in [0, 1) is the completed fraction of the image, and
    choose(logits) returns the tokens.
    """
    rows = [*prompts, *(against or ())]
    count = model.model.vqmodel.quantize.quant_state_dims
    total = count[0] * count[1]
    check_length(model, max(map(len, rows)) + total - 1)
    cache, hidden = read(model, rows, total - 1)
    angles = _angles(model, [len(row) for row in rows], total - 1, hidden)
    mask = padding([len(row) for row in rows], cache.keys[0].shape[2], hidden)
    with two_rows(model, len(rows)):
        for step in range(total):
            logits = model.model.generation_head(hidden)
            tokens = choose(_guided(logits, against is not None, combine, step, total))
            yield tokens
            if step + 1 < total:
                hidden = _step(model, tokens, len(rows), cache, angles, step, mask)


def check_length(model, tokens: int) -> None:
    """Raises ValueError for more tokens than the language model has positions."""
    most = model.config.text_config.max_position_embeddings
    if tokens > most:
        raise ValueError(
            f"the prompt and the image have {tokens:,} tokens, the model {most:,} positions; "
            "shorten the text"
        )


def _guided(logits: Tensor, guides: bool, combine: Combine, step: int, total: int) -> Tensor:
    """Returns the logits to choose from. Raises FloatingPointError if one is not finite."""
    parts = logits.chunk(2) if guides else (logits,)
    guided = combine(*parts, step / total) if guides else logits
    if not bool(guided.isfinite().all()):
        names = ("logits with the prompt", "logits without the prompt")
        named = dict(zip(names, parts, strict=False)) | {"guided logits": guided}
        finite.check_rows(named, f"at token {step + 1} of {total}")
    return guided


def _step(
    model, tokens: Tensor, rows: int, cache: Slots, angles: tuple, step: int, mask: Tensor | None
) -> Tensor:
    """Returns hidden states (rows, D) after each row has read its image's newest token."""
    hidden = model.prepare_embeddings_for_image_generation(tokens)[:, None]
    hidden = hidden.repeat(rows // len(tokens), 1, 1)
    here = tuple(part[:, step : step + 1] for part in angles)
    cache.seen += 1
    seen = None if mask is None else mask[..., : cache.seen]
    told = {"attention_mask": seen, "position_embeddings": here, CACHE: cache}
    for block in model.model.language_model.layers:
        hidden = block(hidden, **told)
    return model.model.language_model.norm(hidden[:, -1])


def read(model, rows: Sequence[Ids], more: int) -> tuple[Slots, Tensor]:
    """Returns a cache of every row's prompt with room for `more`, and the last hidden states (rows,
    D).

    Distinct prompts are read once each; those of one length are read together, without padding.
    """
    language, longest = model.model.language_model, max(map(len, rows))
    weight = model.model.generation_embeddings.weight
    like = torch.empty(0, dtype=weight.dtype, device=execution_device(model))
    cache = slots(language, len(rows), longest, longest + more, like)
    last = like.new_zeros(len(rows), language.config.hidden_size)
    for _, same in groupby(sorted(set(rows), key=lambda row: (len(row), row)), key=len):
        distinct = list(same)
        out = language(torch.tensor(distinct, device=like.device), use_cache=True)
        for place, prompt in enumerate(distinct):
            mine = [i for i, row in enumerate(rows) if row == prompt]
            cache.put(mine, out[CACHE], place)
            last[mine] = out.last_hidden_state[place, -1]
    return cache, last


def _angles(model, lengths: Sequence[int], steps: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Rotary cosines and sines of all steps, (rows, steps, size); one row if all are equal."""
    starts = torch.tensor(sorted(set(lengths)) if len(set(lengths)) == 1 else lengths)
    places = starts[:, None] + torch.arange(max(1, steps))
    return model.model.language_model.rotary_emb(like, places.to(like.device))
