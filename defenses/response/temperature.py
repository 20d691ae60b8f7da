"""Flatten the scores with a temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from defenses.response.argmax import keep_argmax
from defenses.response.draws import Draws

__all__ = ["Temperature"]


@dataclass(frozen=True)
class Temperature:
    """p_i^(1/T) / sum_j p_j^(1/T): T = 1 changes nothing, a larger T flattens. Keeps the arg max.

    Scores that differ by so little that their powers are the same float keep their winner by the next larger float.

    Invertible up to the precision of the released scores: alone it hides nothing from a client who knows T.
    """

    temperature: float

    strength: ClassVar[str] = "temperature"
    keeps_argmax: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature} must be positive")

    def __call__(self, scores: np.ndarray, draws: Draws) -> np.ndarray:
        """scores (N, C), rows on the simplex -> the same, flattened."""
        powered: np.ndarray = (scores / scores.max(axis=1, keepdims=True)) ** (1.0 / self.temperature)
        powered /= powered.sum(axis=1, keepdims=True)
        return keep_argmax(scores, powered)
