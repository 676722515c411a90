"""Measures how similar two representations of the same samples are, whatever their widths."""

import torch
from torch import Tensor, nn

from janusflow.training import timestep_sampling
from samplers.fields import widest


@torch.no_grad()
def by_block(model, x: Tensor, t: Tensor, prompt, features: Tensor, tokens: int = 8) -> list[float]:
    """CKNNA between the image tokens after every block of a `JanusFlowModel` and `features` (B, n,
    D').

    The features are of the same images, such as a vision encoder's of the clean ones; the result is
    one number per block. x (B, c, h, w), t (B,) and prompt are those of `JanusFlowModel.velocity`.
    `tokens` of each image are compared, drawn from a fixed seed, because all n would mostly find
    neighbours in their own image. Raises ValueError for features of other images or tokens.
    """
    rows = torch.arange(len(x))[:, None]
    found = []
    for k in range(1, len(model.language_model.model.layers) + 1):
        hidden = model.velocity(x, t, prompt, return_hidden=k)[1]
        if features.ndim != 3 or features.shape[:2] != hidden.shape[:2]:
            raise ValueError(
                f"features {tuple(features.shape)} came for image tokens {tuple(hidden.shape)}; "
                "expected the same images and as many tokens of each"
            )
        rng = timestep_sampling.generator(0, 0, 8)
        chosen = torch.stack([torch.randperm(hidden.shape[1], generator=rng)[:tokens] for _ in x])
        pair = [one[rows, chosen].flatten(0, 1) for one in (hidden, features)]
        found.append(cknna(*pair))
    return found


def cknna(first: Tensor, second: Tensor, neighbours: int = 10) -> float:
    """Centred kernel nearest-neighbour alignment of (N, D) and (N, D'), at most 1.

    K and L are the Gram matrices of unit rows without their diagonals; only pairs count that are
    among each other's `neighbours` nearest in both. CKNNA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L,
    L)), each with its own mask. It is 1 for equal local geometry and about 0 for unrelated
    features; with `neighbours` = N - 1 it is unbiased CKA. Huh et al. 2024, arXiv 2405.07987,
    appendix A; HSIC as in Song et al. 2012, eq. 5.

    Raises ValueError for different numbers of rows or fewer than four, or neighbours outside [2, N
    - 1].
    """
    n = len(first)
    if first.ndim != 2 or second.ndim != 2 or len(second) != n or n < 4:
        raise ValueError(
            f"CKNNA got features {tuple(first.shape)} and {tuple(second.shape)}; expected (N, D) "
            "and (N, D') of the same N >= 4 samples"
        )
    if not 2 <= neighbours < n:
        raise ValueError(f"CKNNA of {n} samples got {neighbours} neighbours; expected 2 to {n - 1}")
    a, b = _gram(first), _gram(second)
    near_a, near_b = _nearest(a, neighbours), _nearest(b, neighbours)
    shared = _hsic(a * (near_a & near_b), b * (near_a & near_b))
    return float(shared / (_hsic(a * near_a, a * near_a) * _hsic(b * near_b, b * near_b)).sqrt())


def _gram(rows: Tensor) -> Tensor:
    unit = nn.functional.normalize(rows.detach().to(widest(rows.device)), dim=1)
    return unit @ unit.T


def _nearest(gram: Tensor, count: int) -> Tensor:
    """Returns (N, N), True at the `count` largest entries of each row except the row's own."""
    others = gram.clone().fill_diagonal_(-torch.inf)
    places = others.topk(count, dim=1).indices
    return torch.zeros_like(gram, dtype=torch.bool).scatter(1, places, True)


def _hsic(a: Tensor, b: Tensor) -> Tensor:
    """Returns the unbiased estimate from two Gram matrices, ignoring their diagonals."""
    n = len(a)
    a, b = a.clone().fill_diagonal_(0), b.clone().fill_diagonal_(0)
    total = (a * b.T).sum() + a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 * (a @ b).sum() / (n - 2)
    return total / (n * (n - 3))
