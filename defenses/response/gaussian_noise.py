"""Gaussian noise on the scores, drawn afresh for each request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from defenses.response.argmax import keep_argmax
from defenses.response.draws import Draws

__all__ = ["GaussianNoise"]


@dataclass(frozen=True)
class GaussianNoise:
    """Add N(0, sigma^2) to every score, clip at zero, divide by the sum.

    sigma  standard deviation, in units of a score, in [0, 1]
    keep   1: the arg max stays what it was, its noisy score exchanged with the largest one; 0: it may move

    Fresh noise for each request: whoever may ask often enough averages it away. `keyed_noise` does not draw again.
    """

    sigma: float
    keep: float = 0.0

    strength: ClassVar[str] = "sigma"

    def __post_init__(self) -> None:
        if not 0 <= self.sigma <= 1:
            raise ValueError(f"sigma={self.sigma} must lie in [0, 1]")
        if self.keep not in (0, 1):
            raise ValueError(f"keep={self.keep:g} must be 0 or 1")

    @property
    def keeps_argmax(self) -> bool:
        return self.keep == 1

    def __call__(self, scores: np.ndarray, draws: Draws) -> np.ndarray:
        """scores (N, C), rows on the simplex -> the same, with noise."""
        return self._add(scores, draws.fresh(scores.shape))

    def _add(self, scores: np.ndarray, normal: np.ndarray) -> np.ndarray:
        """scores (N, C) with sigma times the standard normal numbers (N, C); a row that is all clipped is uniform."""
        noisy = np.clip(scores + self.sigma * normal, 0.0, None)
        total = noisy.sum(axis=1, keepdims=True)
        noisy = np.where(total > 0, noisy / np.where(total > 0, total, 1.0), 1.0 / scores.shape[1])
        return keep_argmax(scores, noisy) if self.keeps_argmax else noisy
