"""Public images that a tiny network learns in seconds: a bright bar at one of three places."""

from __future__ import annotations

import numpy as np

__all__ = ["SHAPE", "bars", "distance"]

SHAPE = (1, 16, 12)  # no power of two, and not square


def bars(n: int = 64, seed: int = 0) -> np.ndarray:
    """Images (n, 1, 16, 12): a bar of 4 columns, left, in the middle or right, on a dark ground with a little noise."""
    draw = np.random.default_rng(seed)
    x = draw.uniform(0.0, 0.05, (n, *SHAPE))
    for image, place in zip(x, draw.integers(0, 3, n), strict=True):
        image[..., 4 * place : 4 * place + 4] += 0.9
    return np.asarray(x, np.float32)


def distance(images: np.ndarray) -> float:
    """Root mean square distance of images to the nearest image without noise."""
    ideal = np.full((3, *SHAPE), 0.025, np.float32)
    for place in range(3):
        ideal[place, ..., 4 * place : 4 * place + 4] += 0.9
    each = ((images[:, None] - ideal[None]) ** 2).mean((2, 3, 4)).min(1)
    return float(np.sqrt(each.mean()))
