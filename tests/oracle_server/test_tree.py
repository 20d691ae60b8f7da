"""A hosted tree: its logits are the class shares of the leaves, and its card says what is public."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oracle_server.models.card import Card
from oracle_server.models.repository import Repository
from oracle_server.models.tree import TreeModel, host_tree
from oracle_server.victims.table_models import grow
from oracle_server.victims.tables import Table, table_named
from protos.tree import Tree


@pytest.fixture(scope="module")
def table() -> Table:
    return table_named("affairs601")


@pytest.fixture(scope="module")
def tree(table: Table) -> Tree:
    return grow(table, np.arange(300), min_leaf=3)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def test_softmax_of_the_logits_is_the_class_shares(tree: Tree, table: Table, tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    card = host_tree(tree, repository, "affairs")
    model = TreeModel(repository.archive(card), card, batch=8)
    model.warm_up()
    pieces = model.logits([table.X[:5], table.X[5:6], table.X[6:100]])
    assert [len(piece) for piece in pieces] == [5, 1, 94]
    logits = np.concatenate(pieces)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    counts = tree.predict_counts(table.X[:100])
    assert softmax(logits) == pytest.approx(counts / counts.sum(axis=1, keepdims=True), abs=1e-6)
    assert (softmax(logits)[counts == 0] == 0).all()
    assert (logits.argmax(axis=1) == tree.label(table.X[:100])).all()


def test_the_card_says_what_is_public(tree: Tree, table: Table, tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    card = host_tree(tree, repository, "affairs", "2")
    assert card == repository.card("affairs/2") == Card.read(tmp_path / "models" / "affairs" / "2" / "card.json")
    assert (card.kind, card.input_shape, card.classes, card.confusion_rows) == ("tree", (8,), 5, "training")
    assert (card.low, card.high) == (0.0, 57.0)
    assert card.features == tree.features
    assert card.response == tree.response
    assert np.array_equal(card.confusion, tree.confusion())
    assert card.archive_bytes == len(tree.to_json()) == repository.archive(card).stat().st_size
    affair = card.features[table.position("affair")]
    assert affair.prior[1] == pytest.approx(table.X[:300, table.position("affair")].mean())
    with pytest.raises(FileExistsError):
        host_tree(tree, repository, "affairs", "2")


def test_a_held_out_confusion_matrix_is_called_so(tree: Tree, tmp_path: Path) -> None:
    card = host_tree(tree, Repository(tmp_path), "affairs", confusion=np.eye(5, dtype=int))
    assert (card.confusion_rows, card.confusion[0]) == ("held-out", (1, 0, 0, 0, 0))


@pytest.mark.parametrize("confusion", [np.eye(4), -np.eye(5), np.ones(5)])
def test_a_confusion_matrix_that_does_not_fit_is_refused(tree: Tree, tmp_path: Path, confusion: np.ndarray) -> None:
    with pytest.raises(ValueError, match="confusion matrix"):
        host_tree(tree, Repository(tmp_path), "affairs", confusion=confusion)
    assert not list(tmp_path.rglob("*.json"))
