"""Things cut into parts of given shares: what every split by rule does, of rows or of whole people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["parted"]


def parted(things: NDArray[np.int64], shares: Sequence[float]) -> list[NDArray[np.int64]]:
    """`things` (N,), in their order, as one part for each share of a sum of 1; none is empty where N allows it.

    >>> [part.tolist() for part in parted(np.arange(5), (0.9, 0.05, 0.05))]
    [[0, 1, 2], [3], [4]]
    """
    ends = np.rint(np.cumsum(shares)[:-1] * len(things)).astype(np.int64)
    if len(things) >= len(shares):
        for place in range(len(ends)):  # a part of few things never is empty
            low, high = (ends[place - 1] if place else 0) + 1, len(things) - (len(ends) - place)
            ends[place] = np.clip(ends[place], low, high)
    return np.split(things, ends)
