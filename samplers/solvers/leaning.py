"""Predictions of `auto` with four steps, whose weights depend on the velocities of each sample.

With four velocities no fixed weights suit smooth networks, narrow data and strong guidance alike.
So every prediction but the first moves weight between the newest and older velocities. The change
is linear in features of each sample: cosines and ratios of norms of the velocities and of their
divided differences, which need no further evaluation. The coefficients were fitted to random fields
of the suite's families and to data moved off the centre, none of them in either half of the suite.
The fit minimised the mean logarithm of the error over the best other method's, plus that of a power
mean, in which the worst fields dominate.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

STEPS = 4  # with six steps held-out fields gained nothing, with eight a tenth
WHOLE = 0.85  # least fraction of the path, because the coefficients depend on the position on it
LARGEST = 3.0  # largest logarithm of a ratio
TINY = 1e-20  # smallest squared norm

# by the number of velocities known; a row for each of `looks`, a column for each older velocity
COEFFICIENTS: dict[int, tuple[tuple[float, ...], ...]] = {
    2: (
        (0.061,),
        (0.013,),
        (-0.109,),
        (0.003,),
    ),
    3: (
        (0.015, -0.049),
        (0.030, -0.178),
        (-0.069, 0.070),
        (-0.005, -0.019),
        (-0.055, -0.122),
        (-0.016, 0.028),
    ),
    4: (
        (0.128, -0.141, -0.205),
        (0.299, -0.420, -0.196),
        (-0.097, 0.068, 0.029),
        (-0.056, 0.233, 0.089),
        (0.044, 0.074, -0.181),
        (-0.083, 0.079, 0.448),
        (0.066, -0.320, 0.025),
        (-0.011, 0.153, 0.100),
        (0.226, -0.268, -0.347),
    ),
}
# the same on the grid of a field with a time shift
SHIFTED = {
    3: (
        (0.013, -0.059),
        (0.023, -0.142),
        (-0.050, 0.078),
        (-0.009, -0.028),
        (-0.028, -0.055),
        (-0.018, 0.041),
    ),
    4: (
        (0.199, -0.138, -0.267),
        (0.267, -0.424, -0.141),
        (-0.016, 0.047, -0.094),
        (-0.047, 0.306, 0.024),
        (0.055, 0.157, -0.039),
        (-0.031, 0.055, 0.039),
        (0.008, -0.282, -0.016),
        (-0.024, 0.196, 0.008),
        (0.188, -0.440, -0.361),
    ),
}


def leans(ts: Sequence[float] | Tensor) -> bool:
    """Whether a grid uses these predictions: it has four steps and leads from noise to data."""
    return len(ts) == STEPS + 1 and float(ts[-1] - ts[0]) >= WHOLE


def lean(
    weights: Tensor,
    noise: Tensor,
    known: list[Tensor],
    ts: Sequence[float],
    shifted: bool = False,
) -> Tensor:
    """Returns a step's weights with a prediction that depends on each sample's velocities.

    `weights` are those of the start and the end of a step, (DEPTH, 2, 1 or B, 1, ...), and `known`
    the velocities, (B, ...), both from the newest back. What older velocities gain in weight the
    newest loses, so a straight path stays exact.
    """
    rows = (SHIFTED if shifted else COEFFICIENTS).get(len(known))
    if rows is None:
        return weights
    values = [v.reshape(len(v), -1) for v in reversed(known)]
    step = ts[len(known)] - ts[len(known) - 1]
    table = torch.tensor(rows, dtype=noise.dtype, device="cpu").to(noise.device)
    seen = looks(noise.reshape(len(noise), -1), values, ts)
    older = step * (seen[:, :, None] * table).sum(1)  # autocast would narrow a matrix product
    unknown = older.new_zeros(len(noise), len(weights) - len(known))
    gains = torch.cat([-older.sum(1, keepdim=True), older.flip(1), unknown], 1).T
    gains = torch.stack([torch.zeros_like(gains), gains], 1)
    return weights + gains.reshape(*gains.shape, *weights.shape[3:])


def looks(noise: Tensor, values: list[Tensor], ts: Sequence[float]) -> Tensor:
    """Returns the features of each sample's path, (B, 4), (B, 6) or (B, 9) from two to four
    velocities.

    The columns are one; the cosine of the first velocity and the noise, which is -1 at the start of
    a flow to centred data; cosine and log ratio of norms of the last two velocities, of the last
    two divided differences, and of the two before; and the cosine of the last divided difference
    and the one two before it.
    """
    gaps = [b - a for a, b in pairwise(ts[: len(values)])]
    slopes = [(b - a) / h for (a, b), h in zip(pairwise(values), gaps, strict=True)]
    pairs = [(values[0], noise), (values[-2], values[-1])]
    pairs += zip(slopes[-2::-1], slopes[:0:-1], strict=True)
    pairs += [(slopes[-3], slopes[-1])] if len(slopes) > 2 else []
    cosines, ratios = compare(*(torch.stack(side) for side in zip(*pairs, strict=True)))
    first, *turns = cosines.unbind()
    seen = [torch.ones_like(first), first]
    for turn, growth in zip(turns, ratios[1 : len(slopes) + 1], strict=False):
        seen += turn, growth
    seen += turns[len(slopes) :]
    return torch.stack(seen, 1).nan_to_num()  # where a square overflows


def compare(old: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the cosine of two vectors, (..., D) twice, and the logarithm of |new| / |old|."""
    a, b = (x.square().sum(-1).clamp_min(TINY) for x in (old, new))
    return (old * new).sum(-1) * a.rsqrt() * b.rsqrt(), ((b / a).log() / 2).clamp(-LARGEST, LARGEST)
