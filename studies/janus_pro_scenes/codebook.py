"""A codebook for small images, fitted in closed form inside transformers' VQ model.

Images are folded: patches of p x p pixels become channels, so the network has one level and works
on the grid of tokens. Its weights make it linear in spite of norms and activations. Every number is
passed as the pair (a, -a) in a group of its own, so that a group's mean is zero; a is so small that
the group norm's epsilon dominates its variance; and silu(a) - silu(-a) = a. Residual and attention
blocks add nothing. What remains are the patches' principal components, and the codes are their
k-means centres.

A code c is stored as the unit vector (c, |c|^2 / 2R, r) / R and a patch x as (x, -R, 0), so the
nearest code has the largest product, as the published quantiser compares.
"""

import torch
from torch import Tensor, nn

SMALL = 1e-6  # scale of the pairs; their variance, below 1e-9, vanishes beside the norm's 1e-6
EPSILON = 1e-6  # of the group norms


@torch.no_grad()
def fit(vq, folded: Tensor, seed: int = 0, rounds: int = 8) -> None:
    """Sets all weights from folded images (B, C, h, w): components, codes, and the linear path.

    The VQ model must have one level of 64 channels without residual blocks, and `embed_dim` - 2 =
    `latent_channels` components, at most 32.
    """
    patches = folded.permute(0, 2, 3, 1).flatten(0, 2).unique(dim=0).double()
    mean, size = patches.mean(dim=0), vq.config.latent_channels
    axes = torch.linalg.eigh((patches - mean).T.cov())[1][:, -size:]
    codes = centres(((patches - mean) @ axes).float(), vq.config.num_embeddings, seed, rounds)
    _silence(vq)
    radius = _table(vq, codes)
    _encoder(vq, axes.float(), mean.float(), radius)
    _decoder(vq, axes.float(), mean.float(), radius)


def centres(points: Tensor, count: int, seed: int, rounds: int) -> Tensor:
    """k-means: (N, d) -> (count, d). A centre without points is moved to a random point."""
    rng = torch.Generator().manual_seed(seed)
    points = points[torch.randperm(len(points), generator=rng)[: 16 * count]]
    found = points[torch.randperm(len(points), generator=rng)[:count]]
    for _ in range(rounds):
        nearest = (points @ found.T - found.square().sum(dim=1) / 2).argmax(dim=1)
        number = torch.bincount(nearest, minlength=count)[:, None]
        sums = torch.zeros_like(found).index_add_(0, nearest, points)
        spare = points[torch.randint(len(points), (count,), generator=rng)]
        found = torch.where(number > 0, sums / number.clamp(min=1), spare)
    return found


def _silence(vq) -> None:
    """Makes residual and attention blocks add nothing, and removes all biases."""
    for name, parameter in vq.named_parameters():
        if name.endswith("bias") or ".conv2." in name or ".proj_out." in name:
            parameter.zero_()


def _table(vq, codes: Tensor) -> float:
    """Writes the codes as unit vectors; returns R, by which they were divided."""
    norms = codes.square().sum(dim=1)
    radius = float((2 * norms.max()).sqrt())
    lifted = norms / (2 * radius)
    rest = (radius**2 - norms - lifted**2).sqrt()
    table = torch.cat([codes, lifted[:, None], rest[:, None]], dim=1)
    vq.quantize.embedding.weight.copy_(table / radius)
    return radius


def _encoder(vq, axes: Tensor, mean: Tensor, radius: float) -> None:
    size = axes.shape[1]
    into, out = vq.encoder.conv_in, vq.encoder.conv_out
    _centre(into, _pairs(axes.T) * SMALL)
    into.bias.copy_(_padded(-_pairs((axes.T @ mean)[:, None])[:, 0] * SMALL, into))
    _through(vq.encoder.norm_out)
    _centre(out, _difference(size))
    into = vq.quant_conv
    into.weight.zero_()
    into.weight[:size, :, 0, 0] = torch.eye(size)
    into.bias[size] = -radius


def _decoder(vq, axes: Tensor, mean: Tensor, radius: float) -> None:
    size = axes.shape[1]
    vq.post_quant_conv.weight.zero_()
    vq.post_quant_conv.weight[:, :size, 0, 0] = torch.eye(size) * radius
    _centre(vq.decoder.conv_in, _pairs(torch.eye(size)) * SMALL)
    _through(vq.decoder.norm_out)
    _centre(vq.decoder.conv_out, axes @ _difference(size))
    vq.decoder.conv_out.bias.copy_(mean)


def _pairs(rows: Tensor) -> Tensor:
    """Each row followed by its negative."""
    return torch.stack([rows, -rows], dim=1).flatten(0, 1)


def _difference(size: int) -> Tensor:
    """Returns the matrix of first minus second of each pair, (size, 2 size)."""
    return _pairs(torch.eye(size)).T


def _through(norm: nn.GroupNorm) -> None:
    """Sets weights that undo the pairs' scale."""
    norm.weight.fill_(EPSILON**0.5 / SMALL)


def _padded(values: Tensor, conv: nn.Conv2d) -> Tensor:
    return nn.functional.pad(values, (0, conv.out_channels - len(values)))


def _centre(conv: nn.Conv2d, matrix: Tensor) -> None:
    """Returns a 3 x 3 convolution with this matrix at its centre and zeros elsewhere."""
    conv.weight.zero_()
    conv.weight[: matrix.shape[0], : matrix.shape[1], 1, 1] = matrix
