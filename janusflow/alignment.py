"""Representation alignment as a small protocol: what is pulled where, how hard and how long.

An `Alignment` is a frozen value and `PRESETS` are the published choices; `Aligner` holds what
training adds to the model for it. Teachers live in `teachers.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import isqrt

import torch
from torch import Tensor, nn

from janusflow import losses
from janusflow.teachers import Teacher, View, make

KINDS = ("teacher", "dispersive", "contrastive")
PROJECTORS = ("mlp", "conv", "linear")
NORMALISATIONS = ("none", "zscore")
SIMILARITIES = {"cosine": losses.alignment, "smooth_l1": losses.smooth_l1}
SCHEDULES = ("constant", "linear", "stop")


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """One way of shaping a model's inside; ValueError says which number does not fit."""

    kind: str = "teacher"  # or, without one, "dispersive" (hidden states), "contrastive" (velocity)
    teacher: str = "own"  # a name of teachers.TEACHERS, or "timm:NAME"
    tap: int | float = 0.25  # block, counted from 1, or share of the depth
    projector: str = "mlp"  # from the tapped tokens to the teacher's width
    normalisation: str = "none"  # of the teacher; "zscore" over the tokens of a picture
    similarity: str = "cosine"
    weight: float = 1.0
    schedule: str = "constant"  # "linear" falls to 0 at `until`, "stop" ends there
    until: int | None = None  # optimizer's steps
    time_weight: str = "even"  # a name of losses.WEIGHTS
    teacher_tap: int | float = 2 / 3  # of the teacher "ema": its block,
    cleaner: float = 0.2  # and by how much its time may lie nearer to the data

    def __post_init__(self):
        for name, options in {
            "kind": KINDS,
            "projector": PROJECTORS,
            "normalisation": NORMALISATIONS,
            "similarity": tuple(SIMILARITIES),
            "schedule": SCHEDULES,
            "time_weight": tuple(losses.WEIGHTS),
        }.items():
            if getattr(self, name) not in options:
                raise ValueError(
                    f"alignment's {name} is {getattr(self, name)!r}; choose one of "
                    f"{', '.join(options)}"
                )
        if not 0 <= self.weight < float("inf") or not 0 <= self.cleaner <= 1:
            raise ValueError(
                f"alignment got weight {self.weight} and cleaner {self.cleaner}; expected a finite "
                "weight of at least 0 and cleaner in [0, 1]"
            )
        if (self.until is None) != (self.schedule == "constant") or (
            self.until is not None and self.until < 1
        ):
            raise ValueError(
                f"alignment's schedule {self.schedule!r} came with until={self.until}; linear and "
                "stop need a step of at least 1, constant takes none"
            )

    def strength(self, step: int) -> float:
        """The weight at an optimizer's step, counted from 0."""
        if self.schedule == "constant":
            return self.weight
        left = max(0.0, 1 - step / self.until)
        return self.weight * (left if self.schedule == "linear" else float(left > 0))

    def block(self, depth: int) -> int:
        """The tapped block of a language model of `depth` blocks, counted from 1."""
        return block(self.tap, depth)


def block(tap: int | float, depth: int) -> int:
    """A whole number as it is, a share of the depth rounded, at least 1.

    ValueError for a place that the model does not have.
    """
    if isinstance(tap, bool) or not isinstance(tap, int | float):
        raise ValueError(f"tap is {tap!r}; expected a block's number or a share of the depth")
    share = isinstance(tap, float)
    found = max(1, round(tap * depth)) if share and tap > 0 else tap
    if not 1 <= found <= depth:
        raise ValueError(
            f"tap {tap!r} fits none of {depth} blocks; choose 1 to {depth} or a share in (0, 1]"
        )
    return found


# Block 8 of 28 is where REPA and its followers tap SiT-XL/2; as a share it fits any depth.
PRESETS = {
    "janusflow": Alignment(),  # Ma et al. 2024, arXiv 2411.07975: block 6 of 24
    "repa": Alignment(tap=8, weight=0.5),  # Yu et al. 2024, arXiv 2410.06940
    "irepa": Alignment(  # Singh et al. 2025, arXiv 2512.10794
        tap=8 / 28, projector="conv", normalisation="zscore", weight=0.5
    ),
    "haste": Alignment(  # Wang et al. 2025, arXiv 2505.16792; its attention maps are not aligned
        tap=8 / 28, weight=0.5, schedule="stop", until=250_000
    ),
    "sra": Alignment(  # Jiang et al. 2025, arXiv 2505.02831: block 4 to block 8 of 12
        teacher="ema", tap=1 / 3, teacher_tap=2 / 3, similarity="smooth_l1", weight=0.2
    ),
    "dispersive": Alignment(kind="dispersive", weight=0.5),  # Wang and He 2025, arXiv 2506.09027
    "contrastive": Alignment(kind="contrastive", weight=0.05),  # Stoica et al. 2025, 2506.05350
}


def preset(name: str, **changes) -> Alignment:
    """A preset with some fields changed; ValueError for a name or field that there is not."""
    if name not in PRESETS:
        raise ValueError(f"no alignment named {name!r}; choose one of {', '.join(PRESETS)}")
    known = {f.name: getattr(PRESETS[name], f.name) for f in fields(Alignment)}
    if unknown := sorted(changes.keys() - known.keys()):
        raise ValueError(f"alignment has no field {unknown[0]!r}; it has {', '.join(known)}")
    return Alignment(**known | changes)


# Between student and teacher


class OnGrid(nn.Module):
    """A convolution over tokens (B, n, D) that are the rows of a square picture."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.convolution = nn.Conv2d(width, out, kernel_size=3, padding=1)

    def forward(self, tokens: Tensor) -> Tensor:
        return _to_tokens(self.convolution(_to_grid(tokens)))


def projector(kind: str, width: int, out: int) -> nn.Module:
    """Tokens (B, n, width) -> (B, n, out): three linear layers with SiLU between (REPA), one 3 x 3
    convolution (iREPA), or one linear layer. It is trained with the model and then thrown away.
    """
    if kind == "conv":
        return OnGrid(width, out)
    if kind == "linear":
        return nn.Linear(width, out)
    wide = 2 * width
    first, last = nn.Linear(width, wide), nn.Linear(wide, out)
    return nn.Sequential(first, nn.SiLU(), nn.Linear(wide, wide), nn.SiLU(), last)


def resampled(tokens: Tensor, count: int) -> Tensor:
    """Tokens (B, n, D) of a square picture as (B, count, D): bilinear, antialiased when fewer.

    ValueError where either number is no square.
    """
    if tokens.shape[1] == count:
        return tokens
    grid, side = _to_grid(tokens), _side(count)
    out = nn.functional.interpolate(grid, (side, side), mode="bilinear", antialias=True)
    return _to_tokens(out)


def zscored(tokens: Tensor) -> Tensor:
    """(z - mean) / std over the tokens of each picture, channel by channel; Singh et al. 2025.

    What all tokens share (the picture's global content) goes, the spatial pattern stays.
    """
    std, mean = torch.std_mean(tokens, dim=1, keepdim=True, correction=0)
    return (tokens - mean) / (std + 1e-6)


def _side(count: int) -> int:
    if isqrt(count) ** 2 != count:
        raise ValueError(f"{count} tokens form no square; alignment needs square pictures")
    return isqrt(count)


def _to_grid(tokens: Tensor) -> Tensor:
    side = _side(tokens.shape[1])
    return tokens.transpose(1, 2).unflatten(2, (side, side))


def _to_tokens(grid: Tensor) -> Tensor:
    return grid.flatten(2).transpose(1, 2)


def compare(protocol: Alignment, hidden: Tensor, teacher: Tensor, t: Tensor) -> Tensor:
    """The loss of projected tokens (B, n, D) and features (B, n', D) at t (B,) -> (B,).

    The features are resampled to the student's tokens, normalised and compared; no gradient
    reaches them.
    """
    teacher = resampled(teacher.detach().to(hidden.dtype), hidden.shape[1])
    if protocol.normalisation == "zscore":
        teacher = zscored(teacher)
    return losses.weighted(
        SIMILARITIES[protocol.similarity](hidden, teacher), t, protocol.time_weight
    )


class Aligner(nn.Module):
    """A protocol at work on a model: the projector is trained, the teacher is not part of it.

    `width` is the language model's, `depth` its blocks. ValueError for a protocol with a teacher
    that came without one.
    """

    def __init__(self, protocol: Alignment, width: int, depth: int, teacher: Teacher | None = None):
        super().__init__()
        self.protocol, self.tap = protocol, protocol.block(depth)
        self.teach = [teacher]  # in a list, so that its weights are neither trained nor saved here
        self.projector = nn.Identity()
        if protocol.kind == "teacher":
            if teacher is None:
                raise ValueError(
                    f"this alignment needs its teacher {protocol.teacher!r}; make one with "
                    "teachers.make"
                )
            self.projector = projector(protocol.projector, width, teacher.width)

    def needs_hidden(self, step: int) -> bool:
        """Whether the tapped block is looked at in this step."""
        return self.protocol.strength(step) > 0 and self.protocol.kind != "contrastive"

    def losses(
        self, step: int, view: View, velocity: Tensor, hidden: Tensor | None
    ) -> dict[str, Tensor]:
        """One named loss (B,), not yet multiplied by `protocol.strength(step)`; none where that is
        0, and then the teacher is not run. `hidden`: the image tokens after block `tap`.
        """
        protocol = self.protocol
        if not protocol.strength(step):
            return {}
        if protocol.kind == "contrastive":
            values = losses.contrastive(velocity, view.noise, view.data)
            return {"contrastive": losses.weighted(values, view.t, protocol.time_weight)}
        if protocol.kind == "dispersive":
            values = losses.dispersive(hidden)
            return {"dispersive": losses.weighted(values, view.t, protocol.time_weight)}
        with torch.no_grad():
            features = self.teach[0](view)
        return {"alignment": compare(protocol, self.projector(hidden), features, view.t)}


def build(
    protocol: Alignment,
    model: nn.Module,
    average: nn.Module | None = None,
    **options,
) -> Aligner:
    """The aligner of a JanusFlow model with its teacher; options and errors as `teachers.make`."""
    sizes = model.config.language_config
    teacher = None
    if protocol.kind == "teacher":
        place = block(protocol.teacher_tap, sizes.num_hidden_layers)
        teacher = make(
            protocol.teacher,
            model,
            average=average,
            block=place,
            cleaner=protocol.cleaner,
            **options,
        )
    return Aligner(protocol, sizes.hidden_size, sizes.num_hidden_layers, teacher)


def gradient_cosine(first: Tensor, second: Tensor, hidden: Tensor) -> Tensor:
    """Cosine of the gradients of two losses (B,) at the tapped tokens (B, n, D), whole batch -> ().

    Below 0 the two pull the block in opposite directions, the conflict for which HASTE ends the
    alignment. The graph stays usable. 0 where one of them does not depend on `hidden`.
    """
    both = [
        torch.autograd.grad(loss.sum(), hidden, retain_graph=True, materialize_grads=True)[0]
        for loss in (first, second)
    ]
    return nn.functional.cosine_similarity(*(g.flatten().float() for g in both), dim=0)
