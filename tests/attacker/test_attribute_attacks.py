"""Attribute inversion on a tree and a regression so small that every posterior is worked out by hand."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from attacker.answers import Answer
from attacker.attacks import METHODS
from attacker.snapshot import Snapshot
from protos.schema import Feature
from protos.tree import Tree
from tests.tables import PRIOR_A, PRIOR_B, WORDS, N, whole_tree


class TableOracle:
    """The members of `attacker.oracle.Oracle` that attacks on tables use, around a tree in this process."""

    def __init__(self, tree: Tree) -> None:
        self._tree, self.kind = tree, "tree"
        self.features, self.response, self.confusion = tree.features, tree.response, tree.confusion()
        self.error_std: float | None = None
        self.asked: list[np.ndarray] = []
        self.tags: list[Any] = []

    def query(self, inputs: np.ndarray, targets: Any = None) -> Answer:
        self.asked.append(inputs)
        self.tags.append(targets)
        return Answer(labels=self._tree.label(inputs))

    def tree(self) -> Tree:
        return self._tree


def finish(name: str, oracle: Any, folder: Path, text: str, targets: list[int], **parameters: Any) -> Snapshot:
    path = folder / "people.csv"
    path.write_text(text)
    (snapshot,) = METHODS[name](given=path, **parameters).run(oracle, targets, seed=3)
    return snapshot


EVERYBODY = "b,y\nno,no\nno,yes\nyes,no\nyes,yes\n"
CASES = [(0, 0), (0, 1), (1, 0), (1, 1)]  # (b, y) of each person


def test_white_box_is_bayes_rule_on_the_counts(tmp_path: Path) -> None:
    oracle = TableOracle(whole_tree())
    snapshot = finish("white_box_counts", oracle, tmp_path, EVERYBODY, [0, 1, 2, 3], unknown="a")
    weight = np.array([PRIOR_A * N[:, b, y] / N.sum((1, 2)) for b, y in CASES])
    expected = weight / weight.sum(1, keepdims=True)
    np.testing.assert_allclose(snapshot.extras["posterior_a"], expected)
    np.testing.assert_array_equal(snapshot.images[:, 0], expected.argmax(1))
    np.testing.assert_array_equal(snapshot.images[:, 1], [0, 0, 1, 1])
    assert snapshot.images[:, 0].tolist() == [0, 1, 1, 0]
    assert snapshot.mark == 0
    assert not oracle.asked


def test_without_the_response_only_the_sizes_of_the_leaves_are_left(tmp_path: Path) -> None:
    snapshot = finish(
        "white_box_counts",
        TableOracle(whole_tree()),
        tmp_path,
        "b\nno\nyes\n",
        [0, 1],
        unknown="a",
        use_response=False,
    )
    weight = np.array([N[:, b].sum(1) for b in (0, 1)], dtype=float)  # the priors are those of the same rows
    np.testing.assert_allclose(snapshot.extras["posterior_a"], weight / weight.sum(1, keepdims=True))


def test_map_weighs_the_confusion_matrix(tmp_path: Path) -> None:
    oracle = TableOracle(whole_tree())
    snapshot = finish("map_inversion", oracle, tmp_path, EVERYBODY, [0, 1, 2, 3], unknown="a")
    confusion = np.zeros((2, 2))
    for a, b in product((0, 1), (0, 1)):
        confusion[:, N[a, b].argmax()] += N[a, b]
    np.testing.assert_array_equal(oracle.confusion, confusion)
    error = confusion / confusion.sum(1, keepdims=True)
    weight = np.array([[PRIOR_A[a] * error[y, N[a, b].argmax()] for a in (0, 1)] for b, y in CASES])
    np.testing.assert_allclose(snapshot.extras["posterior_a"], weight / weight.sum(1, keepdims=True))
    assert snapshot.mark == 2
    assert len(oracle.asked[0]) == 8
    assert oracle.tags[0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_two_unknown_features_are_summed_out(tmp_path: Path) -> None:
    """Of a person of whom only y is known; each feature is decided by its own posterior."""
    for name in ("white_box_counts", "map_inversion"):
        oracle = TableOracle(whole_tree())
        snapshot = finish(name, oracle, tmp_path, "y\nno\nyes\n", [0, 1], unknown="a,b")
        prior = np.outer(PRIOR_A, PRIOR_B)
        if name == "white_box_counts":
            weight = np.array([prior * N[:, :, y] / N.sum(2) for y in (0, 1)])
        else:
            error = oracle.confusion / oracle.confusion.sum(1, keepdims=True)
            weight = np.array([prior * error[y][N.argmax(2)] for y in (0, 1)])
        weight /= weight.sum((1, 2), keepdims=True)
        np.testing.assert_allclose(snapshot.extras["posterior_a"], weight.sum(2))
        np.testing.assert_allclose(snapshot.extras["posterior_b"], weight.sum(1))


def test_only_the_chosen_people_are_attacked(tmp_path: Path) -> None:
    oracle = TableOracle(whole_tree())
    snapshot = finish("map_inversion", oracle, tmp_path, EVERYBODY, [3, 1], unknown="a")
    assert snapshot.images[:, 1].tolist() == [1, 0]
    assert oracle.tags[0].tolist() == [3, 3, 1, 1]


def test_a_regression_has_a_gaussian_error(tmp_path: Path) -> None:
    """y = 2 a + b with error 0.5: the posterior is that of two normal densities."""
    features = (Feature("a", WORDS, 0, 1, (0.7, 0.3)), Feature("b", (), 0, 10, (1.0,), (0, 10)))
    oracle = SimpleNamespace(
        kind="regression",
        features=features,
        response=Feature("y", (), 0, 12, (1.0,), (0, 12)),
        confusion=None,
        error_std=0.5,
        query=lambda rows, targets: Answer(numbers=(2 * rows[:, 0] + rows[:, 1]).astype(np.float64)),
    )
    snapshot = finish("map_inversion", oracle, tmp_path, "b,y\n4,5.2\n4,4\n4,5\n", [0, 1, 2], unknown="a")
    density = np.exp(-0.5 * (np.array([[1.2, -0.8], [0, -2], [1, -1]]) / 0.5) ** 2) * [0.7, 0.3]
    np.testing.assert_allclose(snapshot.extras["posterior_a"], density / density.sum(1, keepdims=True))
    assert snapshot.images[:, 0].tolist() == [1, 0, 0]  # the prior decides between equals
    oracle.error_std = None
    with pytest.raises(ValueError, match="standard deviation"):
        finish("map_inversion", oracle, tmp_path, "b,y\n4,5.2\n", [0], unknown="a")


def test_floors_ask_nothing(tmp_path: Path) -> None:
    oracle = TableOracle(whole_tree())
    people = "b\n" + "no\n" * 1000
    mode = finish("marginal_mode", oracle, tmp_path, people, list(range(1000)), unknown="a")
    assert (mode.images[:, 0] == PRIOR_A.argmax()).all()
    drawn = finish("random_guess", oracle, tmp_path, people, list(range(1000)), unknown="a").images[:, 0]
    assert set(drawn.tolist()) == {0, 1}
    assert abs(drawn.mean() - 0.5) < 0.06
    assert not oracle.asked


def test_ideal_is_what_the_model_says(tmp_path: Path) -> None:
    oracle = TableOracle(whole_tree())
    snapshot = finish("ideal_model", oracle, tmp_path, "a,b\nno,no\nno,yes\nyes,no\n", [0, 1, 2])
    assert snapshot.extras["guess"].tolist() == [N[0, 0].argmax(), N[0, 1].argmax(), N[1, 0].argmax()]
    assert snapshot.mark == 1


@pytest.mark.parametrize("name", ["map_inversion", "white_box_counts", "random_guess", "marginal_mode", "ideal_model"])
def test_bad_files_cost_nothing(tmp_path: Path, name: str) -> None:
    oracle = TableOracle(whole_tree())
    parameters = {} if name == "ideal_model" else {"unknown": "a"}
    with pytest.raises(ValueError, match="none of its levels"):
        finish(
            name, oracle, tmp_path, "a,b\nno,maybe\n" if name == "ideal_model" else "b,y\nmaybe,no\n", [0], **parameters
        )
    assert not oracle.asked
