"""One forward pass of the language model over several samples, packed or one per row."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from janusflow.models.attention_capture import QueriesKeys, attending, last_block
from janusflow.models.janusflow.packed_attention import NAME, Segments
from janusflow.models.janusflow.packing import (
    Packable,
    PackLayout,
    generation_numbers,
    image_places,
    image_positions,
    labelled,
    lay_out,
    pack,
)
from janusflow.utils.forward_mode import differentiable_attention


@dataclass(frozen=True)
class Outputs:
    """What the losses read, for G generation samples and A answering samples, each in their order.

    `velocity` (G, c, h, w), `hidden` (G, n, D) and `heads` are None without generation samples or
    if they were not requested. `logits` (M, V) are at the positions that predict the labelled
    tokens `targets` (M,), which belong to samples `owner` (M,) in [0, A).
    """

    velocity: Tensor | None
    hidden: Tensor | None
    heads: list[QueriesKeys] | None
    logits: Tensor
    targets: Tensor
    owner: Tensor
    answers: int  # A

    def next_token(self) -> Tensor:
        """Returns (A,) mean cross-entropies of labelled tokens, as losses.next_token does."""
        each = nn.functional.cross_entropy(self.logits.float(), self.targets, reduction="none")
        sums = each.new_zeros(self.answers).index_add(0, self.owner, each)
        counts = torch.bincount(self.owner, minlength=self.answers).clamp(min=1)
        return sums / counts


@differentiable_attention()
def forward(
    model,
    samples: Sequence[Packable],
    x: Tensor | None = None,
    t: Tensor | None = None,
    dropped: Tensor | None = None,
    tap: int | None = None,
    attend: Sequence[int] = (),
    *,
    packed: bool = True,
    capacity: int = 4096,
    target: Tensor | None = None,
) -> Outputs:
    """Runs the language model once over all samples, packed or one per row.

    - `x` (G, c, h, w) are the noisy latents of the generation samples, `t` (G,) their times.
    - `dropped` (G,) says whose prompt is dropped, for classifier-free guidance.
    - `tap` is `return_hidden` of JanusFlowModel.velocity.
    - `attend` lists blocks (counted from 1) whose queries and keys are returned.
    - `target` (G,) is the end time of a flow map, for the decoder.

    The result equals encode_prompt with velocity, and the model's own forward, up to rounding. No
    keys and values are stored, so gradient checkpointing works.
    """
    patch = model.config.generation.patch
    count = len(generation_numbers(samples))
    _check(samples, count, x, t, dropped)
    hide = [False] * count if dropped is None else dropped.tolist()
    packs = pack(samples, capacity, patch) if packed else [[i] for i in range(len(samples))]
    features = times = made = None
    if count:
        features, times = model.vision_gen_enc_model(x.to(model.dtype), t.to(x.device))
        made = model.vision_gen_enc_aligner(features.flatten(2).transpose(1, 2))
        made = torch.cat([times.embedding[:, None].to(made.dtype), made], dim=1)  # (G, 1 + n, D)
    grid = features.shape[2:] if count else (0, 0)
    layout = lay_out(samples, packs, hide, image_positions(*grid, model.config.image_grid))
    embeds = _embed(model, samples, layout, packs, made)
    decoder = model.language_model.model
    with attending(model.language_model, attend) as looked, last_block(decoder) as end:
        out = decoder(
            inputs_embeds=embeds,
            position_ids=layout.positions.to(embeds.device),
            use_cache=False,
            output_hidden_states=tap is not None and count > 0,
            **_attention(model, layout, embeds),
        )
    last = out.last_hidden_state.flatten(0, 1)  # (rows * width, D)
    velocity = hidden = heads = None
    if count:
        places = image_places(layout, made.shape[1]).to(embeds.device)  # the time token's first
        end_time = times if target is None else model.decoder_times(target)
        velocity = model.leave(_images(last, places), features, end_time).to(x.dtype)
        if tap is not None:
            tapped = end[0] if tap == len(decoder.layers) else out.hidden_states[tap]
            hidden = _images(tapped.flatten(0, 1), places[:, 1:])
        heads = looked.at(places[:, 1:]) if attend else None
    before, targets, owner, answers = labelled(samples, layout, packs)
    logits = model.language_model.lm_head(last.index_select(0, before.to(last.device)))
    device = logits.device
    return Outputs(velocity, hidden, heads, logits, targets.to(device), owner.to(device), answers)


def _check(samples, count: int, x, t, dropped) -> None:
    if not samples:
        raise ValueError("the list of samples is empty; give at least one")
    for name, value in (("x", x), ("t", t), ("dropped", dropped)):
        got = 0 if value is None else len(value)
        if got != count and not (name == "dropped" and value is None):
            raise ValueError(
                f"{name} has {got} rows for {count} samples of kind generation; give one row for "
                "each"
            )


def _embed(model, samples, layout: PackLayout, packs, made: Tensor | None) -> Tensor:
    """Returns (rows, width, D): embeddings of tokens and both kinds of images, zeros at padding."""
    order = [samples[i] for one in packs for i in one]
    device = model.get_input_embeddings().weight.device
    seen = [_seen(s, len(ids)) for s, ids in zip(order, layout.ids, strict=True)]
    pixels = [pixels for pixels, _ in seen if pixels is not None]
    masks = [mask for _, mask in seen]
    images = {}
    if pixels:
        images = dict(
            pixel_values=torch.cat(pixels).to(device),
            image_token_mask=torch.cat(masks)[None].to(device),
        )
    text = model.embed(torch.cat(layout.ids)[None].to(device), **images)[0]  # (T, D)
    pieces = []
    parts = zip(text.split([len(ids) for ids in layout.ids]), layout.made, layout.gaps, strict=True)
    for words, number, gap in parts:
        pieces.append(words)
        if number is not None:
            pieces.append(made[number].to(words.dtype))
        if gap:
            pieces.append(words.new_zeros(gap, words.shape[1]))
    return torch.cat(pieces).unflatten(0, (layout.rows, -1))


def _seen(sample: Packable, length: int) -> tuple[Tensor | None, Tensor]:
    """Returns the images in a sample's text and the mask (length,) of their places.

    A dropped prompt, of which only BOS remains, shows none.
    """
    mask = sample.image_token_mask
    if mask is None or len(mask) != length or not bool(mask.any()):
        return None, torch.zeros(length, dtype=torch.bool)
    pixels = getattr(sample, "shown", None) if sample.kind == "generation" else sample.pixel_values
    return pixels, mask


def _attention(model, layout: PackLayout, embeds: Tensor) -> dict:
    """Returns what separates the samples, in the form of the model's attention."""
    name, device = model.config.language_config._attn_implementation, embeds.device
    if name == NAME:
        segments = Segments.of(layout.starts, layout.lengths, layout.positions.numel())
        # four dimensions, so that transformers makes no mask of its own; segments replace it
        unread = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)
        return dict(attention_mask=unread, segments=segments.to(device))
    if name not in ("sdpa", "eager"):
        raise ValueError(
            f"attn_implementation is {name!r}, which cannot attend within packed samples; load the "
            "model with attn_implementation='sdpa'"
        )
    segment = layout.segment.to(device)
    causal = torch.ones(layout.width, layout.width, dtype=torch.bool, device=device).tril()
    seen = (segment[:, :, None] == segment[:, None, :]) & causal  # (rows, width, width)
    if name == "eager":  # adds its mask
        lowest = torch.finfo(embeds.dtype).min
        return dict(attention_mask=seen.logical_not()[:, None].to(embeds.dtype) * lowest)
    return dict(attention_mask=seen[:, None])


def _images(flat: Tensor, places: Tensor) -> Tensor:
    return flat.index_select(0, places.flatten()).unflatten(0, tuple(places.shape))
