"""Gaussian noise on the scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["GaussianNoise"]


@dataclass(frozen=True)
class GaussianNoise:
    """Add N(0, sigma^2) to every score, clip at zero, divide by the sum. Does not keep the arg max.

    Fresh noise for each request: whoever may ask often enough averages it away.
    """

    sigma: float

    def __post_init__(self) -> None:
        if not 0 <= self.sigma <= 1:
            raise ValueError(f"sigma={self.sigma} must lie in [0, 1]")

    def __call__(self, scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """scores (N, C), rows on the simplex -> the same, with noise."""
        noisy = np.clip(scores + rng.normal(0.0, self.sigma, scores.shape), 0.0, None)
        total = noisy.sum(axis=1, keepdims=True)
        return np.where(total > 0, noisy / np.where(total > 0, total, 1.0), 1.0 / scores.shape[1])
