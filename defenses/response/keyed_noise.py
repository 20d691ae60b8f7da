"""Gaussian noise on the scores that the input decides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from defenses.response.draws import Draws
from defenses.response.gaussian_noise import GaussianNoise

__all__ = ["KeyedNoise"]


@dataclass(frozen=True)
class KeyedNoise(GaussianNoise):
    """The noise of `gaussian_noise`, drawn once for each input: a keyed function of (server secret, model, input row).

    sigma  standard deviation, in units of a score, in [0, 1]
    keep   1: the arg max stays what it was; 0: it may move

    The same input gets the same noise under every request id and every key with these defences, at any time, so that
    nothing is gained by asking again. Another model, or another chain of defences up to this one, has noise of its own:
    one noise on two different scores would be found by subtraction. It is no smooth function of the input: who asks
    about many inputs next to each other still averages, at the price of a charged row for each.
    """

    def __call__(self, scores: np.ndarray, draws: Draws) -> np.ndarray:
        """scores (N, C), rows on the simplex -> the same, with noise; `ValueError` when `draws` has no inputs."""
        return self._add(scores, draws.keyed(scores.shape))
