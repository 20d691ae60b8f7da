"""Do the reconstructions look like the photos as a set? The Fréchet distance of two clouds of points.

With means m, m' and covariances S, S' (divided by N - 1), the squared distance of the two normal distributions is

    |m - m'|^2 + tr(S + S' - 2 (S S')^(1/2))

D. C. Dowson and B. V. Landau, "The Fréchet distance between multivariate normal distributions", Journal of Multivariate
Analysis 12, 1982; M. Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash
equilibrium", NeurIPS 2017, whose features are Inception's. With others the number is on another scale: compare only
within one network. It grows as the sets shrink, even between two sets of real photos: print that one beside it.
"""

from __future__ import annotations

import numpy as np

from referee.metrics.embedding import points

__all__ = ["frechet_distance"]


def frechet_distance(real: np.ndarray, made: np.ndarray) -> float:
    """The squared Fréchet distance of (N, F) and (M, F), in squared units of the features; symmetric, at least 0.

    The root needs no covariance: with X the centred points over sqrt(N - 1), S = X^T X, the trace of (S S')^(1/2) is
    the sum of the singular values of X X'^T. Sets smaller than F, whose covariances are singular, lose no digits to
    roots of rounding errors, as they do where eigenvalues of S^(1/2) S' S^(1/2) that should be 0 are rooted, and the
    work is that of a matrix of min(N, F) by min(M, F).

    Raises:
        ValueError: fewer than two rows, other widths, values that aren't finite.

    >>> frechet_distance(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]]))
    9.0
    """
    real, made = points(real, "real points", least=2), points(made, "made points", least=2)
    if real.shape[1] != made.shape[1]:
        raise ValueError(f"real points of {real.shape[1]} columns and made ones of {made.shape[1]} don't fit")
    shift = np.square(real.mean(axis=0) - made.mean(axis=0)).sum()
    ours, theirs = _factor(real), _factor(made)
    common = np.linalg.svd(ours @ theirs.T, full_matrices=False, compute_uv=False).sum()
    spread = np.square(ours).sum() + np.square(theirs).sum() - 2 * common
    return float(shift + max(spread, 0.0))


def _factor(cloud: np.ndarray) -> np.ndarray:
    """R of X = QR, (min(N, F), F): R^T R is the covariance, and R R'^T has the singular values of X X'^T."""
    return np.linalg.qr((cloud - cloud.mean(axis=0)) / np.sqrt(len(cloud) - 1)).R
