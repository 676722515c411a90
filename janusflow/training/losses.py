"""Training losses as pure functions with one value per sample.

Times are in [0, 1], where 0 is noise and 1 is data; velocity = data - noise.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from janusflow.training import gather
from janusflow.utils.keywords import choice
from samplers.fields import per_sample, widest

Weight = Callable[[Tensor], Tensor]
WEIGHTS: dict[str, Weight] = {}


def weight(rule: Weight) -> Weight:
    """A decorator that registers a loss weighting by time: t (B,) -> (B,)."""
    WEIGHTS[rule.__name__] = rule
    return rule


@weight
def even(t: Tensor) -> Tensor:
    """The weight 1 at every t."""
    return torch.ones_like(t)


@weight
def noise_side(t: Tensor) -> Tensor:
    """2 (1 - t), whose mean over uniform times is 1."""
    return 2 * (1 - t)


@weight
def data_side(t: Tensor) -> Tensor:
    """2 t, whose mean over uniform times is 1."""
    return 2 * t


@weight
def min_snr(t: Tensor, gamma: float = 5.0) -> Tensor:
    """min(snr, gamma) (1 - t)^2 with snr = t^2 / (1 - t)^2.

    Hang et al. 2023 weight the squared error of the data, which is (1 - t)^2 times that of the
    velocity.
    """
    return torch.minimum(t.square(), gamma * (1 - t).square())


def weighted(losses: Tensor, t: Tensor, name: str = "even") -> Tensor:
    """Weights losses (B,) by name at t (B,). Raises ValueError for an unknown name."""
    choice("no loss weight named", name, WEIGHTS)
    return losses * WEIGHTS[name](t)


# Rectified flow


def interpolate(noise: Tensor, data: Tensor, t: Tensor) -> Tensor:
    """(1 - t) noise + t data, with t (B,) for states (B, ...)."""
    return torch.lerp(noise, data, per_sample(t, data))


def flow(velocity: Tensor, noise: Tensor, data: Tensor) -> Tensor:
    """Mean squared error to data - noise: (B, ...) three times -> (B,). Liu et al. 2022, eq. 1."""
    return (velocity - (data - noise)).square().flatten(1).mean(dim=1)


def by_time(losses: Tensor, t: Tensor, bins: int = 10) -> tuple[Tensor, Tensor]:
    """Returns the sum of the losses (B,) in each of `bins` equal parts of [0, 1], and their number.

    Both are (bins,) in the widest dtype of the device. Sums and counts can be added over steps and
    processes; means could not.
    """
    wide = widest(losses.device)
    place = (t.to(wide) * bins).long().clamp(0, bins - 1)
    sums = torch.zeros(bins, dtype=wide, device=losses.device)
    counts = torch.bincount(place, minlength=bins).to(wide)
    return sums.index_add(0, place, losses.detach().to(wide)), counts


def couple(noise: Tensor, data: Tensor) -> Tensor:
    """Returns the noises (B, ...) reordered to minimise sum |data_i - noise_i|^2.

    This is minibatch optimal transport: Pooladian et al. 2023 (arXiv 2304.14772), Tong et al. 2023
    (arXiv 2302.00482). It ignores the prompts, so the noise of a prompt is no longer normal in
    training although it is in sampling (Cheng and Schwing 2025, arXiv 2503.10636).
    """
    from scipy.optimize import linear_sum_assignment

    data, ours = (x.flatten(1).to(widest(x.device)) for x in (data, noise))
    gain = data @ ours.T  # the rest of the cost is fixed
    _, order = linear_sum_assignment(gain.detach().cpu().numpy(), maximize=True)
    return noise[torch.as_tensor(order, device=noise.device)]


def contrastive(velocity: Tensor, noise: Tensor, data: Tensor) -> Tensor:
    """Minus the mean squared error to another sample's data - noise, (B, ...) -> (B,).

    The other sample is the row before in the batch of all processes, which is in random order. With
    weight w < 1 next to `flow` the optimal velocity moves from v to (v - w mean(v)) / (1 - w).
    Stoica et al. 2025, arXiv 2506.05350, with w = 0.05. Raises ValueError for a batch of one row.
    """
    if len(velocity) < 2 and not gather.together():
        raise ValueError("contrastive flow matching got one sample; it needs at least two a batch")
    return -flow(velocity, gather.rows_before(noise), gather.rows_before(data))


# Representations


def dispersive(hidden: Tensor, temperature: float = 0.5) -> Tensor:
    """log mean_ij exp(-|h_i - h_j|^2 / (D temperature)) over all pairs of rows (B, ...) of D
    numbers.

    It is one number for the batch, repeated for each row (B,): log(1 / B) for rows far apart, 0 for
    equal rows. The rows are those of all processes. Wang and He 2025, arXiv 2506.09027, the InfoNCE
    form with squared distances.
    """
    rows = gather.all_rows(hidden.flatten(1).float())
    rows = rows - rows.mean(dim=0)  # distances stay, and little cancels in what follows
    square = rows.square().sum(dim=1)
    distance = (square[:, None] + square - 2 * rows @ rows.T).clamp(min=0).fill_diagonal_(0)
    logits = -distance / (rows.shape[1] * temperature)
    return (logits.flatten().logsumexp(dim=0) - 2 * math.log(len(rows))).expand(len(hidden))


def alignment(hidden: Tensor, teacher: Tensor) -> Tensor:
    """1 - mean cosine similarity of tokens, (B, L, D) twice -> (B,) in [0, 2].

    The teacher gets no gradient. Yu et al. 2024 (REPA, arXiv 2410.06940), eq. 8, plus one, so that
    perfect alignment gives 0.
    """
    return 1 - nn.functional.cosine_similarity(hidden, teacher.detach(), dim=-1).mean(dim=1)


def smooth_l1(hidden: Tensor, teacher: Tensor, beta: float = 0.05) -> Tensor:
    """Mean of d^2 / (2 beta) where |d| < beta, |d| - beta / 2 elsewhere; (B, L, D) twice -> (B,).

    The teacher gets no gradient. Jiang et al. 2025 (SRA, arXiv 2505.02831), beta from its code.
    """
    loss = nn.functional.smooth_l1_loss
    return loss(hidden, teacher.detach(), beta=beta, reduction="none").flatten(1).mean(dim=1)


def attention(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher | student) of attention maps, averaged over heads and queries, (B, heads, n, n)
    logits twice -> (B,).

    Both maps are restricted to what a causal student sees, the token itself and those before it,
    and normalised there; equal maps give 0. If the numbers of heads differ, the first ones are
    compared. The teacher gets no gradient. Wang et al. 2025 (HASTE, arXiv 2505.16792) use the
    cross-entropy between unrestricted maps, which has the same gradient but is not 0 for equal
    ones.
    """
    heads, n = min(student.shape[1], teacher.shape[1]), student.shape[-1]
    unseen = torch.ones(n, n, dtype=torch.bool, device=student.device).triu(1)
    ours, theirs = (
        x[:, :heads].float().masked_fill(unseen, -1e4).log_softmax(dim=-1)
        for x in (student, teacher.detach())
    )
    each = nn.functional.kl_div(ours, theirs, reduction="none", log_target=True)
    return each.sum(dim=-1).mean(dim=(1, 2))


# Language


def next_token(logits: Tensor, labels: Tensor, ignore: int = -100) -> Tensor:
    """Mean cross-entropy of the labelled tokens, logits (B, L, V) and labels (B, L) -> (B,).

    `labels[:, i]` is the token at place i, compared with the logits at place i - 1; labels of -100
    do not count.
    """
    logits, labels = logits[:, :-1].transpose(1, 2), labels[:, 1:]
    losses = nn.functional.cross_entropy(logits, labels, ignore_index=ignore, reduction="none")
    return losses.sum(dim=1) / (labels != ignore).sum(dim=1).clamp(min=1)
