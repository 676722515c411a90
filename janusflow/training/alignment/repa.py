"""Representation alignment: which block is aligned, with what weight, and for how long.

An `Alignment` is a frozen value, and `PRESETS` are the published choices. `Aligner` holds the
modules that training adds to the model for it. Teachers are in `teachers.py`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from janusflow.models.attention_capture import QueriesKeys
from janusflow.training import losses
from janusflow.training.alignment.teachers import Teacher, View, find, make
from janusflow.training.alignment.token_grids import Grid, OnGrid, grid_of, resampled, zscored
from janusflow.utils.keywords import choice
from samplers.fields import widest

KINDS = ("teacher", "dispersive", "contrastive")
PROJECTORS = ("mlp", "conv", "linear")
NORMALISATIONS = ("none", "zscore")
SIMILARITIES = {"cosine": losses.alignment, "smooth_l1": losses.smooth_l1}
SCHEDULES = ("constant", "linear", "stop")


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Settings of representation alignment. Raises ValueError naming the one that is invalid."""

    kind: str = "teacher"  # or, without one, "dispersive" (hidden states), "contrastive" (velocity)
    teacher: str = "own"  # a name of teachers.TEACHERS, or "timm:NAME"
    teacher_weights: str = "hub"  # of timm's: hub, none (fresh), or a .safetensors file
    teacher_size: int | None = None  # pixels that it sees images at; its own unless told
    tap: int | float = 0.25  # block, counted from 1, or share of the depth
    projector: str = "mlp"  # from the tapped tokens to the teacher's width
    normalisation: str = "none"  # of the teacher; "zscore" over the tokens of an image
    similarity: str = "cosine"
    weight: float = 1.0
    schedule: str = "constant"  # "linear" falls to 0 at `until`, "stop" ends there
    until: int | None = None  # optimizer's steps
    time_weight: str = "even"  # a name of losses.WEIGHTS
    teacher_tap: int | float = 2 / 3  # of the teacher "ema": its block,
    cleaner: float = 0.2  # and by how much its time may lie nearer to the data
    attention: float = 0.0  # weight of the attention maps' term, beside `weight`
    attention_blocks: int | float = 4 / 28  # number or share of blocks, up to the tap, it looks at

    def __post_init__(self):
        for name, options in {
            "kind": KINDS,
            "projector": PROJECTORS,
            "normalisation": NORMALISATIONS,
            "similarity": SIMILARITIES,
            "schedule": SCHEDULES,
            "time_weight": losses.WEIGHTS,
        }.items():
            choice(f"alignment's {name} is", getattr(self, name), options)
        if self.kind == "teacher":
            find(self.teacher)
        if self.teacher_size is not None and not 14 <= self.teacher_size <= 4096:
            raise ValueError(
                f"alignment's teacher_size is {self.teacher_size}; expected 14 to 4096"
            )
        if not 0 <= self.weight < float("inf") or not 0 <= self.cleaner <= 1:
            raise ValueError(
                f"alignment got weight {self.weight} and cleaner {self.cleaner}; expected a finite "
                "weight of at least 0 and cleaner in [0, 1]"
            )
        if not 0 <= self.attention < float("inf") or (
            self.attention and (self.kind != "teacher" or not self.weight)
        ):
            raise ValueError(
                f"alignment's attention is {self.attention}; expected a finite weight of at least "
                "0, and 0 without a teacher or with weight 0"
            )
        if (self.until is None) != (self.schedule == "constant") or (
            self.until is not None and self.until < 1
        ):
            raise ValueError(
                f"alignment's schedule {self.schedule!r} came with until={self.until}; linear and "
                "stop need a step of at least 1, constant takes none"
            )

    def share(self, step: int) -> float:
        """Returns the fraction of the weights that remains at an optimizer step, counted from 0."""
        if self.schedule == "constant":
            return 1.0
        left = max(0.0, 1 - step / self.until)
        return left if self.schedule == "linear" else float(left > 0)

    def strength(self, step: int) -> float:
        """Returns the weight at an optimizer step, counted from 0."""
        return self.weight * self.share(step)

    def weights(self, step: int) -> dict[str, float]:
        """Returns the weight of each loss of the aligner at an optimizer step."""
        found = dict.fromkeys(("alignment", "dispersive", "contrastive"), self.strength(step))
        return found | {"attention": self.attention * self.share(step)}

    def block(self, depth: int) -> int:
        """Returns the aligned block of a language model with `depth` blocks, counted from 1."""
        return block(self.tap, depth)

    def blocks(self, depth: int) -> range:
        """Returns the blocks whose attention is aligned, counted from 1.

        Raises ValueError if there are not that many up to the aligned block.
        """
        if not self.attention:
            return range(0)
        tap, count = self.block(depth), self.attention_blocks
        count = max(1, round(count * depth)) if isinstance(count, float) and count > 0 else count
        if not 1 <= count <= tap:
            raise ValueError(
                f"alignment's attention_blocks is {self.attention_blocks}; the tap is block {tap}, "
                f"so choose 1 to {tap} or a share of the depth"
            )
        return range(tap - count + 1, tap + 1)


def block(tap: int | float, depth: int) -> int:
    """Returns a block number from a whole number, or from a fraction of the depth, rounded and at
    least 1.

    Raises ValueError for a block that the model does not have.
    """
    if isinstance(tap, bool) or not isinstance(tap, int | float):
        raise ValueError(
            f"tap is {tap!r}; expected a block's number from 1, or a share of the depth such as 0.5"
        )
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
    "haste": Alignment(  # Wang et al. 2025, arXiv 2505.16792: attention of blocks 5 to 8 of 28
        tap=8 / 28, weight=0.5, attention=0.5, schedule="stop", until=250_000
    ),
    "sra": Alignment(  # Jiang et al. 2025, arXiv 2505.02831: block 4 to block 8 of 12
        teacher="ema", tap=1 / 3, teacher_tap=2 / 3, similarity="smooth_l1", weight=0.2
    ),
    "dispersive": Alignment(kind="dispersive", weight=0.5),  # Wang and He 2025, arXiv 2506.09027
    "contrastive": Alignment(kind="contrastive", weight=0.05),  # Stoica et al. 2025, 2506.05350
}


def preset(name: str, **changes) -> Alignment:
    """Returns a preset with some fields changed. Raises ValueError for an unknown name or field."""
    choice("no alignment named", name, PRESETS)
    known = {f.name: getattr(PRESETS[name], f.name) for f in fields(Alignment)}
    if unknown := sorted(changes.keys() - known.keys()):
        raise ValueError(f"alignment has no field {unknown[0]!r}; it has {', '.join(known)}")
    return Alignment(**known | changes)


# Between student and teacher


def projector(kind: str, width: int, out: int) -> nn.Module:
    """Returns a module from tokens (B, n, width) to (B, n, out), trained with the model and then
    discarded.

    It is three linear layers with SiLU between them (REPA), one 3 x 3 convolution (iREPA), or one
    linear layer.
    """
    if kind == "conv":
        return OnGrid(width, out)
    if kind == "linear":
        return nn.Linear(width, out)
    wide = 2 * width
    first, last = nn.Linear(width, wide), nn.Linear(wide, out)
    return nn.Sequential(first, nn.SiLU(), nn.Linear(wide, wide), nn.SiLU(), last)


def compare(
    protocol: Alignment, hidden: Tensor, teacher: Tensor, t: Tensor, grid: Grid | None = None
) -> Tensor:
    """The alignment loss of projected tokens (B, n, D) and teacher features (B, n', D) at t (B,) ->
    (B,).

    The features are resampled to the student's tokens and normalised, and get no gradient. `grid`
    is the student's height and width in tokens, if they are not equal.
    """
    teacher = resampled(teacher.detach().to(hidden.dtype), hidden.shape[1], grid)
    if protocol.normalisation == "zscore":
        teacher = zscored(teacher)
    return losses.weighted(
        SIMILARITIES[protocol.similarity](hidden, teacher), t, protocol.time_weight
    )


def compare_attention(
    protocol: Alignment,
    student: list[QueriesKeys],
    teacher: list[QueriesKeys],
    t: Tensor,
    grid: Grid | None = None,
) -> Tensor:
    """The loss between attention maps of equally many blocks of student and teacher at t (B,) ->
    (B,).

    The teacher's queries and keys are resampled to the student's tokens.
    """
    count = student[0].queries.shape[2]
    each = [
        losses.attention(ours.logits(), _resampled_heads(theirs, count, grid).logits())
        for ours, theirs in zip(student, teacher, strict=True)
    ]
    return losses.weighted(torch.stack(each).mean(dim=0), t, protocol.time_weight)


def _resampled_heads(heads: QueriesKeys, count: int, grid: Grid | None = None) -> QueriesKeys:
    def moved(x: Tensor) -> Tensor:
        folded = resampled(x.transpose(1, 2).flatten(2), count, grid)
        return folded.unflatten(2, (x.shape[1], -1)).transpose(1, 2)

    return QueriesKeys(moved(heads.queries), moved(heads.keys))


class Aligner(nn.Module):
    """Applies an alignment to a model: the projector is trained, the teacher is not part of the
    module.

    `width` is the language model's, `depth` its number of blocks. Raises ValueError for settings
    that need a teacher if there is none.
    """

    def __init__(self, protocol: Alignment, width: int, depth: int, teacher: Teacher | None = None):
        super().__init__()
        self.protocol, self.tap = protocol, protocol.block(depth)
        self.blocks = protocol.blocks(depth)  # whose attention `losses` wants to see
        self.teach = [teacher]  # in a list, so that its weights are neither trained nor saved here
        self.projector = nn.Identity()
        if protocol.kind == "teacher":
            if teacher is None:
                raise ValueError(
                    f"this alignment needs its teacher {protocol.teacher!r}; make one with "
                    "teachers.make"
                )
            if self.blocks and not hasattr(teacher, "with_attention"):
                raise ValueError(
                    f"the teacher {protocol.teacher!r} has no attention maps; choose own, random "
                    "or a vision transformer of timm, or set alignment.attention to 0"
                )
            self.projector = projector(protocol.projector, width, teacher.width)

    def needs_hidden(self, step: int) -> bool:
        """Returns whether this step needs the hidden state of the aligned block."""
        return self.protocol.strength(step) > 0 and self.protocol.kind != "contrastive"

    def losses(
        self,
        step: int,
        view: View,
        velocity: Tensor | None,
        hidden: Tensor | None,
        heads: list[QueriesKeys] | None = None,
    ) -> dict[str, Tensor]:
        """Returns named losses (B,), before multiplication by `protocol.weights(step)`.

        If all weights are 0, there are none and the teacher does not run. `hidden` are the image
        tokens after block `tap`, of a square image unless `velocity` says its shape; `heads` are
        queries and keys of the same tokens in `blocks`, if any.
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
        features, theirs = self._taught(view)
        grid = None if velocity is None else grid_of(velocity, hidden.shape[1])
        placed = (grid,) if isinstance(self.projector, OnGrid) else ()
        ours = self.projector(hidden, *placed)
        if grid and (grid[0] == grid[1] or getattr(self.teach[0], "on_students_grid", False)):
            grid = None
        found = {"alignment": compare(protocol, ours, features, view.t, grid)}
        if self.blocks:
            found["attention"] = compare_attention(protocol, heads, theirs, view.t, grid)
        return found

    @torch.no_grad()
    def _taught(self, view: View) -> tuple[Tensor, list[QueriesKeys]]:
        teacher = self.teach[0]
        if not self.blocks:
            return teacher(view), []
        return teacher.with_attention(view, len(self.blocks))


def build(
    protocol: Alignment, model: nn.Module, average: nn.Module | None = None, **options
) -> Aligner:
    """Returns a model's aligner with its teacher, which `teachers.make` makes of the options."""
    sizes = model.config.language_config
    teacher = None
    if protocol.kind == "teacher":
        place = block(protocol.teacher_tap, sizes.num_hidden_layers)
        known = dict(average=average, block=place, cleaner=protocol.cleaner)
        known["weights"] = None if protocol.teacher_weights == "none" else protocol.teacher_weights
        known["size"] = protocol.teacher_size
        teacher = make(protocol.teacher, model, **{**known, **options})
    return Aligner(protocol, sizes.hidden_size, sizes.num_hidden_layers, teacher)


@contextmanager
def watching(model: nn.Module, place: int) -> Iterator[list[Tensor]]:
    """Records the output of block `place` (counted from 1) of the language model, call by call.

    They are the same tensors that later blocks read, as `gradient_cosine` requires.
    """
    seen: list[Tensor] = []
    layer = model.language_model.model.layers[place - 1]
    hook = layer.register_forward_hook(
        lambda _layer, _inputs, out: seen.append(out if isinstance(out, Tensor) else out[0])
    )
    try:
        yield seen
    finally:
        hook.remove()


def gradient_cosine(first: Tensor, second: Tensor, state: Tensor) -> Tensor:
    """Cosine of the gradients of two losses (B,) with respect to a block's output, over the whole
    batch -> ().

    Below 0 the losses pull the block in opposite directions, the conflict at which HASTE ends
    alignment.
    """
    return cosine(gradient_products(first, second, state)).float()


def cosine(products: Tensor) -> Tensor:
    """Returns the cosine from the result of `gradient_products`, or its sum over a batch."""
    return products[0] / (products[1] * products[2]).sqrt()


def gradient_products(first: Tensor, second: Tensor, state: Tensor) -> Tensor:
    """Returns (a b, a a, b b) of the gradients a and b of two losses (B,) at a block's output,
    (3,).

    The graph remains usable. Raises ValueError if a loss does not depend on `state`: a slice of a
    block's output is not what the next block reads, so take it from `watching`.
    """
    both = [
        torch.autograd.grad(loss.sum(), state, retain_graph=True, allow_unused=True)[0]
        for loss in (first, second)
    ]
    if any(gradient is None for gradient in both):
        raise ValueError(
            "the given state does not enter a loss; pass the block's own output, from `watching`"
        )
    a, b = (gradient.flatten().to(widest(state.device)) for gradient in both)
    return torch.stack([a @ b, a @ a, b @ b])
