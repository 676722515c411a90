"""The Frechet distance between two Gaussians, by eigenvalues of symmetric matrices."""

import numpy as np


def root(covariance: np.ndarray) -> np.ndarray:
    """Returns the symmetric square root; eigenvalues that rounding made negative count as zero."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T


def frechet(mean: np.ndarray, covariance: np.ndarray, mean2, covariance2) -> float:
    """|m - m2|^2 + tr(C) + tr(C2) - 2 tr((C^1/2 C2 C^1/2)^1/2) for means (D,), covariances (D, D).

    The product under the root is symmetric, so its eigenvalues are real, and no matrix needs full
    rank. Dowson and Landau 1982; Heusel et al. 2017 for images.
    """
    half = root(covariance)
    middle = half @ covariance2 @ half
    shared = np.sqrt(np.linalg.eigvalsh((middle + middle.T) / 2).clip(min=0)).sum()
    apart = float((mean - mean2) @ (mean - mean2))
    return max(0.0, apart + float(np.trace(covariance) + np.trace(covariance2) - 2 * shared))
