"""Public images that a tiny network learns in seconds: a bright bar at one of three places."""

from __future__ import annotations

import numpy as np

__all__ = ["PLACES", "SHAPE", "bars", "distance", "which"]

SHAPE = (1, 17, 16)  # no power of two, and not square
PLACES = 3


def bars(n: int = 64, seed: int = 0) -> np.ndarray:
    """Images (n, 1, 17, 16): a bar of 5 columns, left, in the middle or right, on a dark ground with a little noise."""
    draw = np.random.default_rng(seed)
    return np.asarray(_ideal()[draw.integers(0, PLACES, n)] + draw.uniform(-0.02, 0.02, (n, *SHAPE)), np.float32)


def distance(images: np.ndarray) -> float:
    """Root mean square distance of images to the nearest image without noise."""
    return float(np.sqrt(_errors(images).min(1).mean()))


def which(images: np.ndarray) -> set[int]:
    """The places of the bars on images."""
    return set(_errors(images).argmin(1).tolist())


def _ideal() -> np.ndarray:
    images = np.full((PLACES, *SHAPE), 0.05)
    for place in range(PLACES):
        images[place, ..., 5 * place : 5 * place + 5] = 0.95
    return images


def _errors(images: np.ndarray) -> np.ndarray:
    return np.asarray(((images[:, None] - _ideal()[None]) ** 2).mean((2, 3, 4)))
