"""Scores bent towards a half, so that answers of different confidence look alike (Lee et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from defenses.response.argmax import keep_argmax
from defenses.response.draws import Draws

__all__ = ["ReverseSigmoid"]


@dataclass(frozen=True)
class ReverseSigmoid:
    """y'_j = alpha (y_j - r(y_j)) with r(y) = beta (s(gamma s^-1(y)) - 1/2), s the sigmoid, alpha such that rows sum to
    one. Keeps the arg max.

    beta   magnitude, in [0, 1]: 0 changes nothing
    gamma  convergence, positive: a small one bends only scores next to 0 and 1

    T. Lee, B. Edwards, I. Molloy, D. Su, "Defending against neural network model stealing attacks using deceptive
    perturbations", IEEE S&P Workshops 2019.

    Differences from the paper: beta beyond 1 is refused, so that y - r(y) is never negative and nothing is clipped;
    s(gamma s^-1(y)) is computed as 1 / (1 + ((1 - y) / y)^gamma), which is exact at 0 and 1, without logits; and where
    the bend would move the arg max, which it is not monotonic enough to promise, the two scores are exchanged (of
    equals, the winner gets the next larger float). Deterministic: whoever knows beta and gamma inverts it up to the
    scores that it maps to the same value.
    """

    beta: float
    gamma: float = 0.1

    strength: ClassVar[str] = "beta"
    keeps_argmax: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta={self.beta} must lie in [0, 1]")
        if not 0 < self.gamma < float("inf"):
            raise ValueError(f"gamma={self.gamma} must be positive and finite")

    def __call__(self, scores: np.ndarray, draws: Draws) -> np.ndarray:
        """scores (N, C), rows on the simplex -> the same, bent."""
        y = np.clip(scores, 0.0, 1.0)  # a sum of rounded scores may be a little off
        with np.errstate(divide="ignore", over="ignore", under="ignore"):
            r = self.beta * (1 / (1 + ((1 - y) / y) ** self.gamma) - 0.5)
        bent = y - r
        bent /= bent.sum(axis=1, keepdims=True)
        return keep_argmax(scores, bent)
