"""A grown tree cut back to where its splits are worth their leaves, so that leaves of few people vanish.

L. Breiman, J. Friedman, R. Olshen, C. Stone, "Classification and regression trees", 1984, chapter 3: minimal
cost-complexity pruning.

    here    book        meaning
    alpha   alpha       price of a leaf, as a share of all training rows
    wrong   R(t) N      training rows of a node that are not of its most frequent class
    leaves  |T_t|       leaves of what hangs below a node
    g       g(t) N      wrong rows that each further leaf below a node saves

Of all subtrees with the same root this is the smallest that minimises wrong / N + alpha * leaves.

Differences from the reference: alpha is given, not chosen by cross-validation; alpha = 0 is no pruning, although the
smallest tree with as few wrong rows may be smaller than the grown one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from defenses.training.priority_cart import Grown

__all__ = ["Pruning"]


@dataclass(frozen=True)
class Pruning:
    """Raises `ValueError` for an alpha below 0 or not finite."""

    alpha: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise ValueError(f"alpha={self.alpha} must be a number from 0, for example 0.005")

    @property
    def off(self) -> bool:
        return self.alpha == 0

    def __call__(self, tree: Grown) -> Grown:
        """The pruned tree; its nodes come after their parents, as they must in `tree`."""
        if self.off:
            return tree
        n, price = len(tree.feature), self.alpha * int(tree.counts.sum())
        counts = np.zeros((n, tree.counts.shape[1]), dtype=np.int64)
        wrong, leaves = np.zeros(n, dtype=np.int64), np.ones(n, dtype=np.int64)  # of what is left below a node
        kept = np.zeros(n, dtype=np.bool_)
        for t in reversed(range(n)):
            saved = -1
            for side in (int(tree.yes[t]), int(tree.no[t])):
                if 0 <= side <= t:
                    raise ValueError("a node stands before its parent: sort the nodes from the root on")
                below = tree.counts[-1 - side] if side < 0 else counts[side]
                counts[t] += below
                wrong[t] += _wrong(below) if side < 0 else wrong[side]
                saved += 1 if side < 0 else int(leaves[side])
            alone = _wrong(counts[t])
            kept[t] = alone - wrong[t] > price * saved  # g > alpha N; at equality the smaller tree
            wrong[t], leaves[t] = (wrong[t], saved + 1) if kept[t] else (alone, 1)
        return _without(tree, kept, counts)


def _wrong(counts: np.ndarray) -> int:
    return int(counts.sum() - counts.max())


def _without(tree: Grown, kept: np.ndarray, counts: np.ndarray) -> Grown:
    """The nodes from the root down to the first that are not kept, which become leaves with their counts (n, C)."""
    chosen: list[int] = []
    sides: list[list[int]] = []
    ends: list[np.ndarray] = []
    todo = [(0 if len(kept) else -1, -1, 0)]  # node or leaf of the old tree; parent in the new one; its side
    while todo:
        t, parent, side = todo.pop()
        if t >= 0 and kept[t]:
            place = len(chosen)
            chosen.append(t)
            sides.append([0, 0])
            todo += [(int(tree.no[t]), place, 1), (int(tree.yes[t]), place, 0)]
        else:
            place = -1 - len(ends)
            ends.append(counts[t] if t >= 0 else tree.counts[-1 - t])
        if parent >= 0:
            sides[parent][side] = place
    rows = np.array(chosen, dtype=np.intp)
    below = np.array(sides, dtype=np.intp).reshape(-1, 2)
    asked = tree.feature[rows], tree.level[rows], tree.threshold[rows]
    return Grown(*asked, below[:, 0], below[:, 1], np.array(ends, dtype=np.int64))
