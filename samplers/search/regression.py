"""Corrects the last step by least squares on a few samples, without further evaluations or
gradients.

A run that ended at x after velocities v_1 ... v_N could also have ended at x + sum_j c_j v_j. If
the exact endpoints of some samples are known, c is found by regression. The c_j add up to zero,
which keeps straight paths exact, and a ridge penalty keeps them small; its strength is chosen by
cross-validation between the two halves of the samples.
"""

from collections.abc import Callable

import torch
from torch import Tensor

RIDGES = (1e-5, 1e-3, 1e-1)
ROUNDS = 3  # of reweighing, so that the logarithm of the error counts and not its square
Judge = Callable[[Tensor], float]  # what is missing at the end (B, D) -> error


def corrected(past: list[Tensor], missing: Tensor, judge: Judge) -> tuple[Tensor, Tensor | None]:
    """Fits changes of the last step's weights to the errors of a run.

    `past` holds the N velocities, `missing` the errors, all (B, ...). Returns (the errors (B, D)
    that remain after changes fitted to the other half of the samples, the changes (N,) fitted to
    all samples, or None if they do not help).
    """
    missing = _flat(missing)
    if len(past) < 2 or len(missing) < 4 or not all(bool(v.isfinite().all()) for v in past):
        return missing, None
    basis = torch.stack([_flat(v - past[-1]) for v in past[:-1]])  # older velocities for the newest
    even = torch.arange(len(missing), device="cpu") % 2 == 0
    found = [(judge(missing), float("inf"), missing)]
    for ridge in RIDGES:
        left = missing.clone()
        for half in (even, ~even):
            change = regress(basis[:, half], missing[half], ridge)
            left[~half] -= torch.tensordot(change, basis[:, ~half], 1)
        found.append((judge(left), ridge, left))
    _, ridge, left = min(found, key=lambda one: one[:2])
    if ridge == float("inf"):
        return missing, None
    change = regress(basis, missing, ridge)
    return left, torch.cat([change, -change.sum(0, keepdim=True)])


def regress(basis: Tensor, missing: Tensor, ridge: float) -> Tensor:
    """Returns c (i,) with sum_i c_i basis_i close to `missing`; basis (i, B, D), missing (B, D).

    Each sample is weighted by the inverse of its squared error, found iteratively.
    """
    change = basis.new_zeros(len(basis))
    eye = torch.eye(len(basis), dtype=basis.dtype, device=basis.device)
    for _ in range(ROUNDS):
        left = (missing - torch.tensordot(change, basis, 1)).square().mean(1)
        weight = 1 / (left + left.mean() / 100 + torch.finfo(left.dtype).tiny)
        weighed = (basis * weight[:, None]).flatten(1)
        gram = weighed @ basis.flatten(1).T
        gram = gram + ridge * gram.trace() / len(gram) * eye
        change = torch.linalg.lstsq(gram, (weighed @ missing.flatten())[:, None]).solution[:, 0]
    return change


def _flat(x: Tensor) -> Tensor:
    """Returns (B, D) in float64 on the CPU, moved first, as Apple's GPUs have no float64."""
    return x.flatten(1).cpu().double()
