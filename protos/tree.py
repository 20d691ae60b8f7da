"""A classification tree as JSON, each leaf with its path, its region and the training rows of every class in it.

This is what a marketplace of trees publishes of a tree that may be downloaded. The victim serves such a file and the
attacker reads it, both with the class below, so that a row reaches the same leaf on both sides.

    {"format": "mirage tree 1", "features": [...], "response": {...}, "rows": 601,
     "leaves": [{"path": [["age", "<=", 24.5], ["kids", "in", ["no"]]],
                 "region": {"age": [17.5, 24.5], "kids": ["no"]}, "counts": [0, 1, 0, 4, 7]}, ...]}

A region names the features that the path restricts. A numeric one is low < x <= high; its low end belongs to it where
that is the smallest legal value of the feature.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.schema import Feature
from protos.tree_nodes import Nodes
from protos.tree_paths import nodes_of_paths

__all__ = ["FORMAT", "MOST_BYTES", "Tree"]

FORMAT = "mirage tree 1"
MOST_BYTES = 1 << 29


@dataclass(frozen=True, eq=False)
class Tree:
    """A tree with m leaves over rows (N, d) float32 of the schema `features`, predicting one of C classes.

    response  nominal; its levels name the classes, its prior is their share of the training rows
    counts    (m, C) int64 training rows of each class in each leaf
    nodes     the inner nodes, and the regions of the leaves

    Raises `ValueError` with one sentence when counts, rows and priors contradict each other.
    """

    features: tuple[Feature, ...]
    response: Feature
    counts: NDArray[np.int64]
    rows: int
    nodes: Nodes

    def __post_init__(self) -> None:
        names = [feature.name for feature in self.features]
        if not names:
            raise ValueError("the tree has no features: name at least one")
        if len({*names, self.response.name}) <= len(names):
            raise ValueError("two of the tree's columns have the same name: rename one of them")
        C = len(self.response.levels)  # noqa: N806
        if not C:
            raise ValueError(f"the tree's response {self.response.name!r} has no classes: name them as its levels")
        if self.counts.shape != (self.nodes.leaves, C):
            raise ValueError(f"the tree needs {C} counts for each of its {self.nodes.leaves} leaves")
        if (self.counts < 0).any():
            raise ValueError(f"leaf {_first(self.counts < 0)} of the tree has a negative count")
        if (empty := self.counts.sum(axis=1, keepdims=True) == 0).any():
            raise ValueError(f"leaf {_first(empty)} of the tree holds no training row")
        total = int(self.counts.sum())
        if total != self.rows:
            raise ValueError(f"the counts of the tree's leaves add up to {total:,}, and it has {self.rows:,} rows")
        shares = self.counts.sum(axis=0) / total
        if not self.response.prior or not np.allclose(shares, self.response.prior, atol=1e-6):
            wrong = int(np.abs(shares - (self.response.prior or -1)).argmax())
            said = f"{self.response.prior[wrong]:.6g}" if self.response.prior else "nothing"
            raise ValueError(
                f"{shares[wrong]:.6g} of the rows in the tree's leaves are of class {self.response.levels[wrong]!r},"
                f" and the prior of the response says {said}"
            )

    @classmethod
    def from_json(cls, data: bytes) -> Tree:
        """Read a tree and check all of it; `ValueError` with one sentence that names what is wrong."""
        if len(data) > MOST_BYTES:
            raise ValueError(f"a tree file of {len(data):,} bytes is too large: at most {MOST_BYTES:,} are read")
        try:
            values = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the tree is not JSON: {error}") from error
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ValueError(f'this is no tree file: it must be an object with "format": "{FORMAT}"')
        try:
            features = tuple(_feature(feature) for feature in values["features"])
            response = _feature(values["response"])
            rows, leaves = values["rows"], values["leaves"]
            paths = [leaf["path"] for leaf in leaves]
            regions = [leaf["region"] for leaf in leaves]
            counts = _counts([leaf["counts"] for leaf in leaves], len(response.levels))
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"a part of the tree file is missing or of the wrong kind: {error}") from error
        if type(rows) is not int:
            raise ValueError(f"the tree's number of rows is no whole number: {rows!r:.40}")
        nodes = nodes_of_paths(features, paths)
        nodes.check_regions(regions)
        return cls(features, response, counts, rows, nodes)

    def to_json(self) -> bytes:
        """The inverse of `from_json`."""
        leaves = [
            {"path": path, "region": region, "counts": counts}
            for path, region, counts in zip(self.nodes.paths(), self.nodes.regions(), self.counts.tolist(), strict=True)
        ]
        values = {
            "format": FORMAT,
            "features": [feature.as_dict() for feature in self.features],
            "response": self.response.as_dict(),
            "rows": self.rows,
            "leaves": leaves,
        }
        return json.dumps(values, separators=(",", ":"), allow_nan=False).encode()

    def apply(self, X: NDArray[Any]) -> NDArray[np.intp]:  # noqa: N803
        """The leaf (N,) that each row (N, d) reaches; a code that is no level is in no set of levels."""
        return self.nodes.apply(X)

    def predict_counts(self, X: NDArray[Any]) -> NDArray[np.int64]:  # noqa: N803
        """Training rows of each class in the leaf of each row: (N, C)."""
        return np.asarray(self.counts[self.apply(X)])

    def label(self, X: NDArray[Any]) -> NDArray[np.intp]:  # noqa: N803
        """The most frequent class (N,) in the leaf of each row, the first of equal ones."""
        return np.asarray(self.counts.argmax(axis=1)[self.apply(X)])

    def consistent(self, features: Sequence[int], codes: NDArray[Any]) -> NDArray[np.bool_]:
        """Which leaves a row can reach (K, m) that has the values `codes` (K, u) at the positions `features` (u,)."""
        return self.nodes.consistent(features, codes)

    def splits_on(self, feature: str) -> int:
        """Number of inner nodes that ask for this feature."""
        return int((self.nodes.feature == [f.name for f in self.features].index(feature)).sum())

    def confusion(self) -> NDArray[np.int64]:
        """Training rows of true class i predicted as j: (C, C)."""
        C = self.counts.shape[1]  # noqa: N806
        predicted = np.eye(C, dtype=np.int64)[self.counts.argmax(axis=1)]
        return np.asarray(self.counts.T @ predicted)


def _feature(values: Any) -> Feature:
    feature = Feature.from_dict(values)
    if not all(isinstance(word, str) for word in (feature.name, *feature.levels)):
        raise ValueError("names of features and levels are texts")
    return feature


def _counts(counts: list[Any], classes: int) -> NDArray[np.int64]:
    for number, leaf in enumerate(counts):
        if not isinstance(leaf, list) or len(leaf) != classes or {type(count) for count in leaf} - {int}:
            raise ValueError(f"leaf {number} of the tree needs {classes} whole numbers as counts, not {leaf!r:.60}")
    return np.array(counts, dtype=np.int64).reshape(len(counts), classes)


def _first(wrong: Any) -> int:
    return int(np.argwhere(wrong)[0, 0])
