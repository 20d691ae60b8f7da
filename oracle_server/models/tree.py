"""A classification tree from `tree.json`: rows (N, d) -> logits (N, C), the logarithms of its leaves' class shares."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from oracle_server.models.card import Card
from oracle_server.models.repository import Repository
from protos.tree import Tree

__all__ = ["TreeModel", "host_tree"]

_NEVER = -1e4  # the logit of a class without rows: finite, and its softmax is exactly zero in float64


class TreeModel:
    """A tree as the scheduler wants a model; rows do not depend on each other, so there are no padded batches."""

    def __init__(self, path: Path, card: Card, batch: int) -> None:
        self.card = card
        self.batch = batch
        self._tree = Tree.from_json(path.read_bytes())
        counts = self._tree.counts
        with np.errstate(divide="ignore"):
            shares = np.log(counts / counts.sum(axis=1, keepdims=True))
        self._logits = np.where(counts > 0, shares, _NEVER).astype(np.float32)

    def logits(self, requests: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Logits of each request, in order; their softmax is the share of each class in the row's leaf."""
        out = self._logits[self._tree.apply(np.concatenate(requests))]
        return np.split(out, np.cumsum([len(request) for request in requests])[:-1])

    def warm_up(self) -> None:
        """Nothing to prepare: the tree is in memory."""


def host_tree(
    tree: Tree,
    repository: Repository,
    name: str,
    version: str = "1",
    *,
    confusion: ArrayLike | None = None,
    description: str = "",
) -> Card:
    """Put a tree into the repository and return its card.

    confusion  (C, C) rows of true class i predicted as j that the card publishes, counted on held-out rows; by default
               it is that of the training rows

    Raises `FileExistsError` for a version that is there already, `ValueError` for a name that is none or a matrix that
    does not fit the classes.
    """
    C = len(tree.response.levels)  # noqa: N806
    matrix = tree.confusion() if confusion is None else np.asarray(confusion)
    if matrix.shape != (C, C) or (matrix < 0).any():
        raise ValueError(f"a confusion matrix of shape {list(matrix.shape)} is given: the tree needs counts ({C}, {C})")
    data = tree.to_json()
    card = Card(
        name=name,
        version=version,
        input_shape=(len(tree.features),),
        low=min(feature.low for feature in tree.features),
        high=max(feature.high for feature in tree.features),
        classes=C,
        parameters=tree.counts.size,
        archive_bytes=len(data),
        archive_sha256=hashlib.sha256(data).hexdigest(),
        torch_version="",
        kind="tree",
        deterministic=True,
        description=description or f"tree of {tree.response.name}, {len(tree.counts):,} leaves, {tree.rows:,} rows",
        features=tree.features,
        response=tree.response,
        confusion=tuple(tuple(int(count) for count in row) for row in matrix),
        confusion_rows="training" if confusion is None else "held-out",
    )
    repository.add(data, card)
    return card
