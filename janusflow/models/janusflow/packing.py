"""Sequence packing: which samples share a sequence, and at which place each token is.

A sample sees only itself: attention is causal within it, and its positions start at 0. Padding is
the special case of one sample per row.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor


class Packable(Protocol):
    """The fields of a sample that packing reads; `janusflow.data.samples.Sample` has them."""

    kind: str  # "generation" for an image to be generated after the prompt
    input_ids: Tensor  # (L,) long
    labels: Tensor | None  # (L,) long, -100 where nothing is learnt
    image_token_mask: Tensor | None  # (L,) bool
    pixel_values: Tensor | None  # (n, 3, S, S)
    shown: Tensor | None  # (n, 3, S, S), what the prompt of an image to be generated shows
    latents: Tensor | None  # (c, h, w)
    name: str


ROUND = 64  # places


def length(sample: Packable, patch: int) -> int:
    """Returns a sample's tokens in the sequence, with the time token and its target image's."""
    if sample.kind != "generation":
        return len(sample.input_ids)
    if sample.latents is None:
        raise ValueError(f"{sample.name or 'a sample'} has no latents; encode its image first")
    height, width = sample.latents.shape[-2:]
    return len(sample.input_ids) + 1 + (height // patch) * (width // patch)


def pack(samples: Sequence[Packable], capacity: int = 4096, patch: int = 2) -> list[list[int]]:
    """Assigns samples to packs by best-fit decreasing; returns the sample numbers of each pack.

    The longest sample is placed first, each into the fullest pack that has room. This needs at most
    11/9 of the fewest packs, plus one (Johnson 1974). Within a pack the samples keep their order.
    Raises ValueError for a sample longer than `capacity`.
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


@dataclass(frozen=True)
class PackLayout:
    """The place of every token in a batch (rows, width) of packs, flattened row by row."""

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
        """The number of the sample at each place, (rows, width); -1 at padding."""
        out = torch.full((self.positions.numel(),), -1)
        for number, (start, size) in enumerate(zip(self.starts, self.lengths, strict=True)):
            out[start : start + size] = number
        return out.view(self.positions.shape)


def lay_out(
    samples: Sequence[Packable],
    packs: list[list[int]],
    dropped: Sequence[bool],
    made_at: Tensor | None = None,
) -> PackLayout:
    """Computes the layout of the samples in their packs.

    `dropped` (G,) says whose prompt is dropped: of it only BOS remains, and the image keeps its
    positions. `made_at` (1 + n,) are the positions, relative to the end of the prompt, of the time
    token and the image tokens to generate; see `image_positions`.
    """
    numbers = {i: g for g, i in enumerate(generation_numbers(samples))}
    ids, made, lengths, positions = [], [], [], []
    for i in (i for one in packs for i in one):
        own, number = samples[i].input_ids, numbers.get(i)
        places = torch.arange(len(own))
        if number is not None:
            places = torch.cat([places, len(own) + made_at])
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
    whole = made_at is None or not made_at.is_floating_point()
    flat = torch.zeros(len(packs) * width, dtype=torch.long if whole else made_at.dtype)
    for start, places in zip(starts, positions, strict=True):
        flat[start : start + len(places)] = places
    return PackLayout(ids, made, starts, lengths, flat.view(len(packs), width), gaps, len(packs))


def image_positions(height: int, width: int, grid: int | None = None) -> Tensor:
    """Returns the positions (1 + height width,) of an image's time token and tokens after its
    prompt.

    Without `grid` they are 0, 1, 2, ... as published. With `grid`, the tokens per side of the
    images that the model was trained on, a place in the image keeps its position at other sizes and
    shapes, as a fraction where the tokens are finer.
    """
    if grid is None or (height, width) == (grid, grid):
        return torch.arange(1 + height * width)
    rows, columns = (
        (torch.arange(count) + 0.5) * (grid / count) - 0.5 for count in (height, width)
    )
    places = 1 + rows[:, None] * grid + columns
    return torch.cat([torch.zeros(1), places.flatten()])


def _width(longest: int) -> int:
    """Rounds up the width of wide packs, so that kernels meet few shapes (see onednn_linear.py)."""
    return longest if longest < 8 * ROUND else -(-longest // ROUND) * ROUND


def generation_numbers(samples: Sequence[Packable]) -> list[int]:
    return [i for i, sample in enumerate(samples) if sample.kind == "generation"]


def image_places(layout: PackLayout, tokens: int) -> Tensor:
    """Returns the flat places (G, n) of the image tokens, in the generation samples' order."""
    ends = {
        number: start + size
        for number, start, size in zip(layout.made, layout.starts, layout.lengths, strict=True)
        if number is not None
    }
    first = torch.tensor([ends[number] for number in range(len(ends))]) - tokens
    return first[:, None] + torch.arange(tokens)


def labelled(samples, layout: PackLayout, packs) -> tuple[Tensor, Tensor, Tensor, int]:
    """Returns the packed positions that predict the labelled tokens, these tokens, the number of
    each one's sample, and the number of samples.

    A token is predicted at the position before it, so a label on a sample's first token is left
    out, as in losses.next_token.
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
