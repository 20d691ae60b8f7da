"""Scores that changed, with the decision that they had."""

from __future__ import annotations

import numpy as np

__all__ = ["keep_argmax"]


def keep_argmax(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """`after` (N, C) with the arg max of `before` (N, C) in every row, ties broken by class index in both.

    Where the arg max moved, its value is exchanged with that of the class that was largest. Where a class before that
    one has the same value still, the winner gets the next larger float: rows stay on the simplex within rounding.

    >>> keep_argmax(np.array([[0.6, 0.4]]), np.array([[0.3, 0.7]]))
    array([[0.7, 0.3]])
    """
    top, found = before.argmax(axis=1), after.argmax(axis=1)
    moved = np.flatnonzero(top != found)
    if len(moved) == 0:
        return after
    kept, top, found = after.copy(), top[moved], found[moved]
    kept[moved, top], kept[moved, found] = after[moved, found], after[moved, top]
    tied = kept[moved].argmax(axis=1) != top
    kept[moved[tied], top[tied]] = np.nextafter(kept[moved[tied], top[tied]], 2)
    return kept
