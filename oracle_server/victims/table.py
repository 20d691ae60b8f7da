"""Tables of people with a sensitive attribute: rows that victims are grown on and attributes are inferred from.

The named tables lie in packages of the extra `victim` or, for `steak`, in a CSV file that is given. Everything that is
public about a table, its schema with the marginal priors, is in its features; the rows are private.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from protos.schema import Feature

__all__ = ["BUCKETS", "Table", "TableUnavailableError", "nominal", "numeric", "table_of"]

BUCKETS = 10  # of a numeric feature's marginal prior


class TableUnavailableError(RuntimeError):
    """The rows are missing or not the known ones; the message says what to do."""


@dataclass(frozen=True, eq=False)
class Table:
    """N people, d features each.

    features   with the priors of the rows that they were counted on: all of them, unless `with_priors` says others
    response   what a model of this table predicts
    X          (N, d) float32: the code of a nominal feature's level, the value of a numeric one
    y          (N,) int64 class of a nominal response, float64 value of a numeric one
    sensitive  names of nominal features that somebody might want to infer
    dropped    rows left out because an answer is missing
    credit, terms  lines that every copy carries
    """

    name: str
    features: tuple[Feature, ...]
    response: Feature
    X: NDArray[np.float32]
    y: NDArray[Any]
    sensitive: tuple[str, ...]
    credit: str = ""
    terms: str = ""
    dropped: int = 0

    def __post_init__(self) -> None:
        if not len(self.X):
            raise ValueError(f"the table {self.name!r} has no rows left: give rows without missing answers")
        if not self.sensitive:
            raise ValueError(f"the table {self.name!r} names no sensitive feature: say which one is to be protected")
        for name in self.sensitive:
            if not self.features[self.position(name)].nominal:
                raise ValueError(f"the sensitive feature {name!r} is numeric: only nominal features can be inferred")

    def position(self, feature: str) -> int:
        """The column of a feature; `ValueError` with the names that exist."""
        names = [known.name for known in self.features]
        if feature not in names:
            raise ValueError(f"the table {self.name!r} has no feature {feature!r}; there is {', '.join(names)}")
        return names.index(feature)

    def with_priors(self, rows: ArrayLike) -> Table:
        """The same table, with priors counted on these rows alone, as the owner of a model grown on them knows them."""
        chosen = np.asarray(rows)
        features = tuple(_with_prior(f, self.X[chosen, j]) for j, f in enumerate(self.features))
        return replace(self, features=features, response=_with_prior(self.response, self.y[chosen]))


def table_of(
    name: str,
    columns: Mapping[str, tuple[Feature, ArrayLike]],
    response: str,
    sensitive: Sequence[str],
    **more: Any,
) -> Table:
    """A table of columns (N,) by name, one of which is the response."""
    features = tuple(feature for key, (feature, _) in columns.items() if key != response)
    values = [np.asarray(column, dtype=np.float32) for key, (_, column) in columns.items() if key != response]
    target, y = columns[response]
    answer = np.asarray(y, dtype=np.int64 if target.nominal else np.float64)
    table = Table(name, features, target, np.stack(values, axis=1), answer, tuple(sensitive), **more)
    return table.with_priors(np.arange(len(table.X)))


def nominal(name: str, words: Sequence[str], levels: Sequence[str]) -> tuple[Feature, NDArray[np.float32]]:
    """A nominal column and its codes (N,); `KeyError` for a word that is no level."""
    code = {level: float(place) for place, level in enumerate(levels)}
    feature = Feature(name, tuple(levels), 0.0, len(levels) - 1.0)
    return feature, np.array([code[word] for word in words], dtype=np.float32)


def numeric(name: str, values: ArrayLike) -> tuple[Feature, NDArray[np.float32]]:
    """A numeric column; what occurs in it is what is legal."""
    column = np.asarray(values, dtype=np.float32)
    low, high = (float(column.min()), float(column.max())) if len(column) else (0.0, 0.0)
    return Feature(name, low=low, high=high), column


def _with_prior(feature: Feature, values: NDArray[Any]) -> Feature:
    if feature.nominal:
        counts = np.bincount(values.astype(np.int64), minlength=len(feature.levels))
        return replace(feature, prior=_shares(counts))
    edges = np.unique(np.quantile(values.astype(np.float64), np.linspace(0, 1, BUCKETS + 1)))
    if len(edges) == 1:
        edges = np.repeat(edges, 2)
    counts, _ = np.histogram(values.astype(np.float64), edges)
    return replace(feature, prior=_shares(counts), edges=tuple(edges.tolist()))


def _shares(counts: NDArray[np.int64]) -> tuple[float, ...]:
    return tuple((counts / counts.sum()).tolist())
