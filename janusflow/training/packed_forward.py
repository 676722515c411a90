"""Several samples in one sequence, and the language model's one forward over them.

A sample sees itself alone: attention is causal inside it, positions restart with it. Padding is
the special case of one sample a row.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn

from janusflow.data.attention import NAME, Segments
from janusflow.data.samples import Sample
from janusflow.models.attention_capture import Heads, attending, last_block
from janusflow.models.janusflow.generation_adapters import Times
from janusflow.utils.forward_mode import differentiable_attention

ROUND = 64  # places


def length(sample: Sample, patch: int) -> int:
    """Places of a sample in the sequence; an image to be made adds its time token and tokens."""
    if sample.kind != "generation":
        return len(sample.input_ids)
    if sample.latents is None:
        raise ValueError(f"{sample.name or 'a sample'} has no latents; encode its picture first")
    height, width = sample.latents.shape[-2:]
    return len(sample.input_ids) + 1 + (height // patch) * (width // patch)


def pack(samples: Sequence[Sample], capacity: int = 4096, patch: int = 2) -> list[list[int]]:
    """Numbers of the samples of each pack, best fit decreasing: the longest first, each into the
    fullest pack that takes it. At most 11/9 of the fewest packs, and one (Johnson 1974).

    Inside a pack the order is the samples'. ValueError for a sample longer than `capacity`.
    """
    lengths = [length(sample, patch) for sample in samples]
    too_long = next((i for i, size in enumerate(lengths) if size > capacity), None)
    if too_long is not None:
        raise ValueError(
            f"{samples[too_long].name or f'sample {too_long}'} has {lengths[too_long]} tokens, a "
            f"pack holds {capacity}; raise the capacity or shorten it"
        )
    packs: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free, pack), sorted
    for i in sorted(range(len(samples)), key=lambda i: (-lengths[i], i)):
        place = bisect_left(room, (lengths[i], -1))
        free, number = room.pop(place) if place < len(room) else (capacity, len(packs))
        if number == len(packs):
            packs.append([])
        packs[number].append(i)
        insort(room, (free - lengths[i], number))
    return [sorted(one) for one in packs]


def fill_rate(samples: Sequence[Sample], packs: list[list[int]], patch: int = 2) -> float:
    """Share of the places of the packs, as wide as the widest, that hold a sample's token."""
    sizes = [sum(length(samples[i], patch) for i in one) for one in packs]
    return sum(sizes) / (len(sizes) * max(sizes))


@dataclass(frozen=True)
class Outputs:
    """What the losses read. G samples are of kind generation, A are not; both in their order.

    `velocity` (G, c, h, w), `hidden` (G, n, D) and the `heads` of blocks, None without generation
    and where they were not asked for. `logits` (M, V) at the places before the labelled tokens
    `targets` (M,), `owner` (M,) in [0, A) their sample.
    """

    velocity: Tensor | None
    hidden: Tensor | None
    heads: list[Heads] | None
    logits: Tensor
    targets: Tensor
    owner: Tensor
    answers: int  # A

    def next_token(self) -> Tensor:
        """Mean cross-entropy of each sample's labelled tokens, (A,); as losses.next_token."""
        each = nn.functional.cross_entropy(self.logits.float(), self.targets, reduction="none")
        sums = each.new_zeros(self.answers).index_add(0, self.owner, each)
        counts = torch.bincount(self.owner, minlength=self.answers).clamp(min=1)
        return sums / counts


@dataclass(frozen=True)
class Layout:
    """Where everything stands in a batch (rows, width) of packs, flattened row by row."""

    ids: list[Tensor]  # of the samples in the packs' order, a dropped prompt's BOS alone
    made: list[int | None]  # for each of them its number among the generation samples, or None
    starts: list[int]  # flat place where each begins
    lengths: list[int]
    positions: Tensor  # (rows, width)
    gaps: list[int]  # padding after each, in places
    rows: int

    @property
    def width(self) -> int:
        return self.positions.shape[1]

    @property
    def segment(self) -> Tensor:
        """(rows, width) number of the sample at each place, -1 at the padding."""
        out = torch.full((self.positions.numel(),), -1)
        for number, (start, size) in enumerate(zip(self.starts, self.lengths, strict=True)):
            out[start : start + size] = number
        return out.view(self.positions.shape)


def lay_out(
    samples: Sequence[Sample], packs: list[list[int]], dropped: Sequence[bool], tokens: int
) -> Layout:
    """`dropped` (G,) says whose prompt is hidden: BOS alone stays, the image's positions too.

    `tokens`: places of an image to be made after its prompt, the time token included.
    """
    numbers = {i: g for g, i in enumerate(_generation(samples))}
    ids, made, lengths, positions = [], [], [], []
    for i in (i for one in packs for i in one):
        own, number = samples[i].input_ids, numbers.get(i)
        places = torch.arange(len(own) + (0 if number is None else tokens))
        if number is not None and dropped[number]:
            places, own = torch.cat([places[:1], places[len(own) :]]), own[:1]
        ids.append(own)
        made.append(number)
        positions.append(places)
        lengths.append(len(places))
    ends = list(accumulate(len(one) for one in packs))
    sizes = [sum(lengths[end - len(one) : end]) for end, one in zip(ends, packs, strict=True)]
    width, starts, gaps = _width(max(sizes)), [], [0] * len(ids)
    for row, (end, one, size) in enumerate(zip(ends, packs, sizes, strict=True)):
        own = [0, *accumulate(lengths[end - len(one) : end])][:-1]
        starts += [row * width + start for start in own]
        gaps[end - 1] = width - size
    flat = torch.zeros(len(packs) * width, dtype=torch.long)
    for start, places in zip(starts, positions, strict=True):
        flat[start : start + len(places)] = places
    return Layout(ids, made, starts, lengths, flat.view(len(packs), width), gaps, len(packs))


def _width(longest: int) -> int:
    """Wide packs end at a round place, so that kernels meet few shapes (see onednn_linear.py)."""
    return longest if longest < 8 * ROUND else -(-longest // ROUND) * ROUND


@differentiable_attention()
def forward(
    model,
    samples: Sequence[Sample],
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
    """One pass of the language model over all samples, packed or one a row.

    `x` (G, c, h, w) are the noisy latents of the generation samples in their order, `t` (G,) their
    times, `dropped` (G,) whose prompt is hidden; `tap` as `return_hidden` of
    JanusFlowModel.velocity; `attend`: blocks (from 1) of which queries and keys are wanted;
    `target` (G,): the time
    that the decoder hears instead of t, that of a flow map. The same numbers as encode_prompt with
    velocity, and as the model's own forward, up to rounding. It writes no keys and values, so
    gradient checkpointing works.
    """
    patch = model.config.generation.patch
    count = len(_generation(samples))
    _check(samples, count, x, t, dropped)
    hide = [False] * count if dropped is None else dropped.tolist()
    packs = pack(samples, capacity, patch) if packed else [[i] for i in range(len(samples))]
    features = times = made = None
    if count:
        features, times = model.vision_gen_enc_model(x.to(model.dtype), t.to(x.device))
        made = model.vision_gen_enc_aligner(features.flatten(2).transpose(1, 2))
        made = torch.cat([times.embedding[:, None].to(made.dtype), made], dim=1)  # (G, 1 + n, D)
    layout = lay_out(samples, packs, hide, made.shape[1] if count else 0)
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
        places = _image_places(layout, made.shape[1] - 1).to(embeds.device)
        heard = times if target is None else _heard(model, target, x)
        velocity = _decode(model, _pictures(last, places), features, heard).to(x.dtype)
        if tap is not None:
            tapped = end[0] if tap == len(decoder.layers) else out.hidden_states[tap]
            hidden = _pictures(tapped.flatten(0, 1), places)
        heads = looked.at(places) if attend else None
    before, targets, owner, answers = _labelled(samples, layout, packs)
    logits = model.language_model.lm_head(last.index_select(0, before.to(last.device)))
    device = logits.device
    return Outputs(velocity, hidden, heads, logits, targets.to(device), owner.to(device), answers)


def _generation(samples: Sequence[Sample]) -> list[int]:
    return [i for i, sample in enumerate(samples) if sample.kind == "generation"]


def _check(samples, count: int, x, t, dropped) -> None:
    if not samples:
        raise ValueError("there are no samples to run; draw at least one")
    for name, value in (("x", x), ("t", t), ("dropped", dropped)):
        got = 0 if value is None else len(value)
        if got != count and not (name == "dropped" and value is None):
            raise ValueError(
                f"{name} has {got} rows for {count} samples of kind generation; expected one each"
            )


def _embed(model, samples, layout: Layout, packs, made: Tensor | None) -> Tensor:
    """(rows, width, D): token embeddings, images seen, images made, zeros at the padding."""
    order = [samples[i] for one in packs for i in one]
    device = model.get_input_embeddings().weight.device
    pixels = [s.pixel_values for s in order if s.kind != "generation" and _sees(s)]
    masks = [
        s.image_token_mask
        if s.kind != "generation" and _sees(s)
        else torch.zeros(len(ids), dtype=torch.bool)
        for s, ids in zip(order, layout.ids, strict=True)
    ]
    pictures = {}
    if pixels:
        pictures = dict(
            pixel_values=torch.cat(pixels).to(device),
            image_token_mask=torch.cat(masks)[None].to(device),
        )
    text = model.embed(torch.cat(layout.ids)[None].to(device), **pictures)[0]  # (T, D)
    pieces = []
    parts = zip(text.split([len(ids) for ids in layout.ids]), layout.made, layout.gaps, strict=True)
    for words, number, gap in parts:
        pieces.append(words)
        if number is not None:
            pieces.append(made[number].to(words.dtype))
        if gap:
            pieces.append(words.new_zeros(gap, words.shape[1]))
    return torch.cat(pieces).unflatten(0, (layout.rows, -1))


def _sees(sample: Sample) -> bool:
    return sample.image_token_mask is not None and bool(sample.image_token_mask.any())


def _attention(model, layout: Layout, embeds: Tensor) -> dict:
    """What keeps the samples apart, as the model's attention takes it."""
    name, device = model.config.language_config._attn_implementation, embeds.device
    if name == NAME:
        segments = Segments.of(layout.starts, layout.lengths, layout.positions.numel())
        # four dimensions, so that transformers makes no mask of its own; segments replace it
        unread = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)
        return dict(attention_mask=unread, segments=segments.to(device))
    if name not in ("sdpa", "eager"):
        raise ValueError(
            f"the model attends by {name!r}; load it with attn_implementation='sdpa' to pack"
        )
    segment = layout.segment.to(device)
    causal = torch.ones(layout.width, layout.width, dtype=torch.bool, device=device).tril()
    seen = (segment[:, :, None] == segment[:, None, :]) & causal  # (rows, width, width)
    if name == "eager":  # adds its mask
        lowest = torch.finfo(embeds.dtype).min
        return dict(attention_mask=seen.logical_not()[:, None].to(embeds.dtype) * lowest)
    return dict(attention_mask=seen[:, None])


def _image_places(layout: Layout, tokens: int) -> Tensor:
    """(G, n) flat places of the image tokens, in the order of the generation samples."""
    ends = {
        number: start + size
        for number, start, size in zip(layout.made, layout.starts, layout.lengths, strict=True)
        if number is not None
    }
    first = torch.tensor([ends[number] for number in range(len(ends))]) - tokens
    return first[:, None] + torch.arange(tokens)


def _pictures(flat: Tensor, places: Tensor) -> Tensor:
    return flat.index_select(0, places.flatten()).unflatten(0, tuple(places.shape))


def _heard(model, t: Tensor, x: Tensor) -> Times:
    return Times(model.vision_gen_enc_model.embed(t.to(x.device), model.dtype))


def _decode(model, hidden: Tensor, features: Tensor, times: Times) -> Tensor:
    """The decoder as in JanusFlowModel.velocity: (G, n, D) -> (G, c, H, W)."""
    x = model.vision_gen_dec_aligner(model.vision_gen_dec_aligner_norm(hidden))
    x = x.transpose(1, 2).unflatten(2, tuple(features.shape[2:]))
    return model.vision_gen_dec_model(x, features, times)


def _labelled(samples, layout: Layout, packs) -> tuple[Tensor, Tensor, Tensor, int]:
    """Flat places before the labelled tokens, those tokens, their samples, and how many samples.

    A label at a sample's first place has nothing before it and is left out, as in
    losses.next_token.
    """
    start = dict(zip((i for one in packs for i in one), layout.starts, strict=True))
    answers = [i for i, sample in enumerate(samples) if sample.kind != "generation"]
    before, targets, owner = [], [], []
    for number, i in enumerate(answers):
        labels = samples[i].labels
        if labels is None:
            continue
        places = (labels[1:] != -100).nonzero()[:, 0]
        before.append(start[i] + places)
        targets.append(labels[1:][places])
        owner.append(torch.full_like(places, number))
    empty = torch.zeros(0, dtype=torch.long)
    joined = (torch.cat([empty, *parts]) for parts in (before, targets, owner))
    return *joined, len(answers)
