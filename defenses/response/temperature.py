"""Flatten the scores with a temperature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Temperature"]


@dataclass(frozen=True)
class Temperature:
    """p_i^(1/T) / sum_j p_j^(1/T): T = 1 changes nothing, a larger T flattens. Keeps the arg max.

    Invertible up to the precision of the released scores: alone it hides nothing from a client who knows T.
    """

    temperature: float

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature} must be positive")

    def __call__(self, scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """scores (N, C), rows on the simplex -> the same, flattened."""
        powered: np.ndarray = (scores / scores.max(axis=1, keepdims=True)) ** (1.0 / self.temperature)
        powered /= powered.sum(axis=1, keepdims=True)
        return powered
