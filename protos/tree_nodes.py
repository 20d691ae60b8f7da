"""The inner nodes of a classification tree, evaluated level by level for all rows at once, and its leaves' regions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.schema import Feature

__all__ = ["MOST_LEAVES", "Nodes"]

MOST_LEAVES = 1_000_000
_MOST_CELLS = 500_000_000  # of an array with a place for each leaf and level


@dataclass(frozen=True, eq=False)
class Nodes:
    """n inner nodes; the first is the root. Each asks one question of a row and sends it on.

    feature    (n,) position of the feature that is asked for
    threshold  (n,) numeric: is x <= threshold?
    members    (n,) nominal: is the level in row `members` of `sets`? -1 for a numeric feature
    sets       (S, L + 1) bool, L the most levels of a feature; the last column stands for no level
    yes, no    (n,) the next node; -1 - i for leaf i

    Raises `ValueError` when a leaf cannot be reached by a legal row, or the tree is too large.
    """

    features: tuple[Feature, ...]
    feature: NDArray[np.intp]
    threshold: NDArray[np.float64]
    members: NDArray[np.intp]
    sets: NDArray[np.bool_]
    yes: NDArray[np.intp]
    no: NDArray[np.intp]

    def __post_init__(self) -> None:
        levels = sum(len(feature.levels) for feature in self.features)
        if self.leaves > MOST_LEAVES or max(self.leaves * levels, self.sets.size) > _MOST_CELLS:
            raise ValueError(f"the tree is too large: {self.leaves:,} leaves over {levels:,} levels")
        _ = self._region  # checks that every leaf can be reached

    @property
    def leaves(self) -> int:
        return len(self.feature) + 1

    def apply(self, X: NDArray[Any]) -> NDArray[np.intp]:  # noqa: N803
        """The leaf (N,) of each row (N, d). Values are compared as float32, as the tree was grown."""
        X = np.asarray(X, dtype=np.float32)  # noqa: N806
        if X.ndim != 2 or X.shape[1] != len(self.features):
            raise ValueError(f"rows have the shape {X.shape}: the tree needs (N, {len(self.features)})")
        at = np.zeros(len(X), dtype=np.intp) if len(self.feature) else np.full(len(X), -1, dtype=np.intp)
        codes = self._codes(X)
        rows = np.flatnonzero(at >= 0)
        while len(rows):
            node = at[rows]
            asked = self.feature[node]
            numeric = X[rows, asked] <= self.threshold[node]
            answer = np.where(self.members[node] < 0, numeric, self.sets[self.members[node], codes[rows, asked]])
            at[rows] = node = np.where(answer, self.yes[node], self.no[node])
            rows = rows[node >= 0]
        return -1 - at

    def consistent(self, features: Sequence[int], codes: NDArray[Any]) -> NDArray[np.bool_]:
        """Which leaves' regions admit the values `codes` (K, u) at the positions `features` (u,): (K, m)."""
        low, high, admitted = self._region
        codes = np.asarray(codes)
        out = np.ones((len(codes), self.leaves), dtype=np.bool_)
        for u, j in enumerate(features):
            value = codes[:, u, None]
            if self.features[j].nominal:
                levels = admitted[:, self._start[j] : self._start[j + 1]]
                legal = (value >= 0) & (value < levels.shape[1]) & (value == np.floor(value))
                out &= legal & levels.T[np.where(legal, value, 0)[:, 0].astype(int)]
            else:
                value = value.astype(np.float32)
                out &= ((value > low[:, j]) | ((value == low[:, j]) & (value == self.features[j].low))) & (
                    value <= high[:, j]
                )
        return out

    def paths(self) -> list[list[list[Any]]]:
        """The conditions on the way to each leaf, as they stand in a file."""
        questions = list(self._questions())
        steps: list[list[list[Any]]] = [[] for _ in range(self.leaves)]
        todo: list[tuple[int, list[list[Any]]]] = [(0 if questions else -1, [])]
        while todo:
            at, path = todo.pop()
            if at < 0:
                steps[-1 - at] = path
                continue
            name, numeric, value = questions[at]
            todo.append((int(self.yes[at]), [*path, [name, "<=" if numeric else "in", value]]))
            todo.append((int(self.no[at]), [*path, [name, ">" if numeric else "not in", value]]))
        return steps

    def regions(self) -> list[dict[str, list[Any]]]:
        """The values that each leaf admits of the features that its path restricts."""
        low, high, admitted = self._region
        out: list[dict[str, list[Any]]] = [{} for _ in range(self.leaves)]
        for j, feature in enumerate(self.features):
            if feature.nominal:
                levels = admitted[:, self._start[j] : self._start[j + 1]]
                restricted = np.flatnonzero(~levels.all(axis=1))
                kinds, which = np.unique(np.packbits(levels[restricted], axis=1), axis=0, return_inverse=True)
                words = [
                    [feature.levels[code] for code in np.flatnonzero(np.unpackbits(kind, count=len(feature.levels)))]
                    for kind in kinds
                ]
                for leaf, kind in zip(restricted.tolist(), which.ravel().tolist(), strict=True):
                    out[leaf][feature.name] = words[kind]
            else:
                restricted = np.flatnonzero((low[:, j] > feature.low) | (high[:, j] < feature.high))
                pairs = np.stack([low[restricted, j], high[restricted, j]], axis=1).tolist()
                for leaf, pair in zip(restricted.tolist(), pairs, strict=True):
                    out[leaf][feature.name] = pair
        return out

    def check_regions(self, given: Sequence[Any]) -> None:
        """Compare regions read from a file with those of the paths; `ValueError` for the first that differs."""
        for leaf, (mine, other) in enumerate(zip(self.regions(), given, strict=True)):
            if mine == other:
                continue
            if not isinstance(other, dict):
                raise ValueError(f"the region of leaf {leaf} of the tree is no object of features")
            for name in dict.fromkeys([*mine, *other]):
                if mine.get(name) != other.get(name):
                    raise ValueError(f"the region of leaf {leaf} of the tree contradicts its path at {name!r:.60}")

    def _codes(self, X: NDArray[np.float32]) -> NDArray[np.intp]:  # noqa: N803
        none = self.sets.shape[1] - 1
        levels = np.array([len(feature.levels) for feature in self.features])
        legal = (X >= 0) & (levels > X) & (np.floor(X) == X)
        return np.where(legal, X, none).astype(np.intp)

    def _questions(self) -> Iterator[tuple[str, bool, Any]]:
        words = [np.flatnonzero(row[:-1]).tolist() for row in self.sets]
        columns = (self.feature, self.threshold, self.members)
        for j, threshold, members in zip(*(column.tolist() for column in columns), strict=True):
            feature = self.features[j]
            value = threshold if members < 0 else [feature.levels[code] for code in words[members]]
            yield feature.name, members < 0, value

    @cached_property
    def _start(self) -> NDArray[np.intp]:
        return np.cumsum([0, *(len(feature.levels) for feature in self.features)])

    @cached_property
    def _region(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """Of each leaf: low (m, d), high (m, d), and the admitted levels of all nominal features (m, sum of L)."""
        m, starts = self.leaves, self._start
        low = np.tile([feature.low for feature in self.features], (m, 1)).astype(np.float64)
        high = np.tile([feature.high for feature in self.features], (m, 1)).astype(np.float64)
        admitted = np.ones((m, int(starts[-1])), dtype=np.bool_)
        if not len(self.feature):
            return low, high, admitted
        column = np.repeat(np.arange(len(self.features)), np.diff(starts))
        code = np.arange(len(column)) - starts[column]
        bottom = low[0]
        at, lows, highs, levels = np.zeros(1, dtype=np.intp), low[:1], high[:1], admitted[:1]
        while len(at):
            j, t, members = self.feature[at], self.threshold[at], self.members[at]
            numeric, k = members < 0, np.arange(len(at))
            here = (column == j[:, None]) & ~numeric[:, None]  # (k, sum of L) levels of the feature that is asked for
            chosen = self.sets[members[:, None], code]
            yes_levels, no_levels = levels & (chosen | ~here), levels & ~(chosen & here)
            yes_highs, no_lows = highs.copy(), lows.copy()
            yes_highs[k[numeric], j[numeric]] = t[numeric]
            no_lows[k[numeric], j[numeric]] = t[numeric]
            below = (t > lows[k, j]) | ((t == lows[k, j]) & (t == bottom[j]))
            both = np.where(
                numeric, below & (t < highs[k, j]), (yes_levels & here).any(axis=1) & (no_levels & here).any(axis=1)
            )
            if not both.all():
                name = self.features[j[both.argmin()]].name
                raise ValueError(f"a path of the tree asks for {name!r:.60} where the answer is known already")
            at = np.concatenate([self.yes[at], self.no[at]])
            lows, highs = np.concatenate([lows, no_lows]), np.concatenate([yes_highs, highs])
            levels = np.concatenate([yes_levels, no_levels])
            done = at < 0
            leaf = -1 - at[done]
            low[leaf], high[leaf], admitted[leaf] = lows[done], highs[done], levels[done]
            at, lows, highs, levels = at[~done], lows[~done], highs[~done], levels[~done]
        return low, high, admitted
