"""The rows of all processes, for losses that compare the samples of a batch with each other."""

import torch
import torch.distributed as dist
from torch import Tensor


class _Gathered(torch.autograd.Function):
    """The rows of all processes, (b, ...) -> (processes, b, ...), with summed gradients."""

    @staticmethod
    def forward(_context, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own)
        return torch.stack(parts)

    @staticmethod
    def backward(_context, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient[dist.get_rank()]


def together() -> bool:
    """Returns whether this process trains with others."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def all_rows(own: Tensor) -> Tensor:
    """Returns the rows of all processes in their order, (b, ...) -> (B, ...).

    The gradient of this process's rows is the sum of their gradients in all processes. Every
    process must call it in the same step, with at least one row.
    """
    if not together():
        return own
    counts = _counts(own)
    padded = torch.cat([own, own.new_zeros(max(counts) - len(own), *own.shape[1:])])
    parts = _Gathered.apply(padded.contiguous())
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def rows_before(own: Tensor) -> Tensor:
    """Returns for each row the one before it in the batch of all processes, (b, ...) -> (b, ...).

    The row before the first one is the last one of the batch.
    """
    if not together():
        return own.roll(1, 0)
    first = sum(_counts(own)[: dist.get_rank()])
    return all_rows(own.detach()).roll(1, 0)[first : first + len(own)]


def _counts(own: Tensor) -> list[int]:
    """Returns the number of rows of each process."""
    counts = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=own.device)
    counts[dist.get_rank()] = len(own)
    dist.all_reduce(counts)
    return counts.tolist()
