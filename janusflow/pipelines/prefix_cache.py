"""Prefix cache: an image and the words before it are read once for all questions that begin with
them.

A prompt's keys and values depend on nothing after it. So batch rows with the same first tokens and
images share those keys and values, and a conversation's next question finds its history's already
computed. The rest runs through transformers' `generate` as always.
"""

from collections.abc import Mapping, Sequence
from itertools import takewhile

import torch
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor
from transformers import DynamicCache

from janusflow.models.janusflow import generation_defaults
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.prompt_cache import CACHE

# Settings of `generate` that do not look at the prompt's ids, which are there only when sharing.
BLIND = {
    "do_sample",
    "eos_token_id",
    "logits_processor",  # `finite.Answer`; a caller's own are not shared with
    "max_new_tokens",
    "pad_token_id",
    "streamer",
    "temperature",
    "top_k",
    "top_p",
}


def blind(model: JanusFlowModel, settings: Mapping) -> bool:
    """Returns whether neither the settings nor the model's own look at the prompt's ids."""
    return settings.keys() | generation_defaults.said(model.generation_config) <= BLIND


def common(rows: Sequence[Sequence[int]]) -> int:
    """Returns the number of leading tokens that all rows share."""
    return sum(1 for _ in takewhile(lambda column: len({*column}) == 1, zip(*rows, strict=False)))


@apply_forward_hook
@torch.no_grad()
def generate(model: JanusFlowModel, inputs, **settings) -> Tensor | None:
    """Returns `model.generate(**inputs, **settings)` with the common prefix computed once.

    It returns None if sharing would not pay. Rows are the processor's, padded on the left. Their
    images must lie within the common prefix, and some rows must show the same ones.
    """
    pixels, places = inputs.get("pixel_values"), inputs.get("image_token_mask")
    ids, seen = inputs["input_ids"], inputs["attention_mask"].bool()
    if pixels is None or len(ids) < 2 or not blind(model, settings):
        return None
    rows = [row[mask].tolist() for row, mask in zip(ids, seen, strict=True)]
    shared = min(common(rows), min(map(len, rows)) - 1)
    shown = places[0][seen[0]][:shared]
    if places.sum() != len(ids) * shown.sum() or not bool(shown.any()):
        return None
    pixels = pixels.flatten(0, -4).unflatten(0, (len(ids), -1))  # (B, images, 3, S, S)
    first, which = distinct(pixels)
    if len(first) == len(ids):
        return None
    start = torch.tensor([rows[0][:shared]], device=ids.device)
    several = start.expand(len(first), -1)
    cache = read(model, several, pixels[first], shown.expand(len(first), -1))
    cache.batch_select_indices(torch.tensor(which, device=ids.device))
    rest = max(map(len, rows)) - shared
    behind, mask = ids[:, -rest:].clone(), seen[:, -rest:].clone()
    for row, tokens in enumerate(rows):
        mask[row, : rest - (len(tokens) - shared)] = False  # what a longer row has there is shared
    start = start.masked_fill(shown, 0).expand(len(ids), -1)
    mask = torch.cat([torch.ones_like(start, dtype=torch.bool), mask], dim=1)
    return after(model, cache, torch.cat([start, behind], dim=1), mask, **settings)


def distinct(pixels: Tensor) -> tuple[list[int], list[int]]:
    """Returns (first, which): the first row of each distinct content, and each row's number among
    them.

    Rows are compared bitwise.
    """
    first: list[int] = []
    which = []
    for row in range(len(pixels)):
        same = (k for k, known in enumerate(first) if torch.equal(pixels[known], pixels[row]))
        kind = next(same, len(first))
        first += [row] if kind == len(first) else []
        which.append(kind)
    return first, which


@apply_forward_hook
def read(
    model: JanusFlowModel, ids: Tensor, pixels: Tensor | None = None, places: Tensor | None = None
) -> DynamicCache:
    """Returns the keys and values of prompts (B, L) without padding, given as for `model.embed`."""
    cache = DynamicCache(config=model.config.language_config)
    embeds = model.embed(ids, pixels, places)
    model.language_model.model(inputs_embeds=embeds, use_cache=True, **{CACHE: cache})
    return cache


@apply_forward_hook
def after(
    model: JanusFlowModel, cache: DynamicCache, ids: Tensor, mask: Tensor, **settings
) -> Tensor:
    """Returns the new token ids (B, n) that follow the prompts `ids` (B, L).

    `cache` holds keys and values of a prefix of the prompts, and is extended.
    """
    out = model.language_model.generate(
        input_ids=ids, attention_mask=mask.long(), **{CACHE: cache}, **settings
    )
    return out[:, ids.shape[1] :]
