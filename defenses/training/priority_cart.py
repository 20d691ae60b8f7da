"""CART that decides at which place of a path the sensitive feature may be used.

M. Fredrikson, S. Jha, T. Ristenpart, "Model inversion attacks that exploit confidence information and basic
countermeasures", CCS 2015, section 6, "Decision Trees".

    here        paper       meaning
    priority    l           the sensitive feature is considered after l - 1 others have been selected on the path
    X, y        db          training rows and their classes
    counts      n_i, w_i    training rows of each class in leaf i
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["Grown", "PriorityCart"]

_MOST_THRESHOLDS = 255  # of a numeric column: more distinct values are cut at quantiles


@dataclass(frozen=True, eq=False)
class Grown:
    """n inner nodes, the first of them the root, and m leaves.

    feature    (n,) column that is asked for
    level      (n,) is the code this one? -1 in a numeric column
    threshold  (n,) is the value at most this one? Of numeric columns
    yes, no    (n,) the next node; -1 - i for leaf i
    counts     (m, C) int64 training rows of each class in each leaf
    """

    feature: np.ndarray
    level: np.ndarray
    threshold: np.ndarray
    yes: np.ndarray
    no: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class PriorityCart:
    """Binary splits by the Gini index until a node is pure or cannot be split; no pruning afterwards.

    priority   l >= 1, counted in distinct other features on the path, so that a second threshold on the same feature
               does not count; None: ordinary CART, the baseline, which considers the sensitive feature everywhere
    considered "at_place": only while exactly l - 1 others have been selected, so that it is passed over where another
               feature is better there. "until_used": from place l on, until it splits. Either way once a path
    min_leaf   fewest training rows in a leaf
    max_depth  most splits on a path

    Differences from the reference: the paper says "removed from consideration afterwards", which can mean either. The
    first gives the curve of its Figure 11, near the baseline at both ends and with most splits on the sensitive feature
    between them; the second falls with l. Nominal features are split on one level against the rest; ties go to the
    first column.
    """

    priority: int | None
    considered: Literal["at_place", "until_used"] = "at_place"
    min_leaf: int = 1
    max_depth: int | None = None

    def __post_init__(self) -> None:
        if self.priority is not None and self.priority < 1:
            raise ValueError(f"priority={self.priority} must be at least 1, the root")
        if self.considered not in ("at_place", "until_used"):
            raise ValueError(f"considered={self.considered!r} must be 'at_place' or 'until_used'")
        if self.min_leaf < 1 or (self.max_depth is not None and self.max_depth < 1):
            raise ValueError("min_leaf and max_depth must be at least 1")

    def grow(self, X: np.ndarray, y: np.ndarray, levels: Sequence[int], classes: int, sensitive: int) -> Grown:
        """Grow a tree on rows X (N, d) with classes y (N,).

        levels     of each column: the number of its codes 0, 1, ...; 0 for a numeric column
        sensitive  the column with the priority
        """
        feature, level, threshold, answers = _questions(X, levels)
        Y = np.eye(classes, dtype=np.float32)[y]
        asked: list[int] = []
        sides: list[list[int]] = []  # of each node, what follows on yes and on no
        leaves: list[np.ndarray] = []
        # rows, distinct others on the path, whether the sensitive feature is on it, depth, parent, side
        todo = [(np.arange(len(X)), frozenset[int](), False, 0, -1, 0)]
        while todo:
            rows, others, used, depth, parent, side = todo.pop()
            total = Y[rows].sum(axis=0, dtype=np.float64)
            best = -1
            if total.max() < len(rows) and (self.max_depth is None or depth < self.max_depth):
                allowed = (feature != sensitive) | self._may_use(len(others), used)
                best = self._best(answers[rows], Y[rows], total, allowed)
            if best < 0:
                place = -1 - len(leaves)
                leaves.append(total)
            else:
                place = len(asked)
                asked.append(best)
                sides.append([0, 0])
                j = int(feature[best])
                told = (others, True) if j == sensitive else (others | {j}, used)
                yes = answers[rows, best] > 0
                todo.append((rows[~yes], *told, depth + 1, place, 1))
                todo.append((rows[yes], *told, depth + 1, place, 0))
            if parent >= 0:
                sides[parent][side] = place
        chosen = np.array(asked, dtype=np.intp)
        ends = np.array(sides, dtype=np.intp).reshape(-1, 2)
        counts = np.rint(np.array(leaves)).astype(np.int64)
        return Grown(feature[chosen], level[chosen], threshold[chosen], ends[:, 0], ends[:, 1], counts)

    def _may_use(self, others: int, used: bool) -> bool:
        if self.priority is None:
            return True
        if self.considered == "at_place":
            return not used and others == self.priority - 1
        return not used and others >= self.priority - 1

    def _best(self, answers: np.ndarray, Y: np.ndarray, total: np.ndarray, allowed: np.ndarray) -> int:
        """The allowed question with the purest sides, or -1 when none leaves `min_leaf` rows on both."""
        yes = (answers.T @ Y).astype(np.float64)  # (Q, C)
        no = total - yes
        n_yes, n_no = yes.sum(axis=1), no.sum(axis=1)
        legal = allowed & (np.minimum(n_yes, n_no) >= self.min_leaf)
        if not legal.any():
            return -1
        # Gini: the sum of squared counts over the rows of each side, as large as possible
        purity = (yes**2).sum(axis=1) / np.maximum(n_yes, 1) + (no**2).sum(axis=1) / np.maximum(n_no, 1)
        return int(np.where(legal, purity, -1.0).argmax())


def _questions(X: np.ndarray, levels: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All Q questions, as in `Grown`, and the answers (N, Q) float32, 1 for yes."""
    feature: list[int] = []
    level: list[int] = []
    threshold: list[float] = []
    answers = []
    for j, L in enumerate(levels):
        column = X[:, j]
        if L:
            codes = range(1) if L == 2 else range(L)
            asked = [(code, 0.0) for code in codes]
            answers.append(column[:, None] == np.array(codes))
        else:
            values = np.unique(column).astype(np.float64)
            if len(values) > _MOST_THRESHOLDS + 1:
                ends = np.quantile(column.astype(np.float64), np.linspace(0, 1, _MOST_THRESHOLDS + 1))
                values = values[np.unique(np.searchsorted(values, ends).clip(max=len(values) - 1))]
            middle = (values[:-1] + values[1:]) / 2
            asked = [(-1, float(value)) for value in middle]
            answers.append(column[:, None] <= middle)
        feature += [j] * len(asked)
        level += [code for code, _ in asked]
        threshold += [value for _, value in asked]
    return (
        np.array(feature, dtype=np.intp),
        np.array(level, dtype=np.intp),
        np.array(threshold),
        np.concatenate(answers, axis=1).astype(np.float32),
    )
