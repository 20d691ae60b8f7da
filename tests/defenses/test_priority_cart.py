"""CART with a place for the sensitive feature: where it may split, and that without a place it is ordinary CART."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier

from defenses.training import Grown, PriorityCart

LEVELS = (2, 3, 0, 2, 5, 0)
SENSITIVE = 0


def people(seed: int = 0, rows: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Rows (N, 6) whose class depends on the sensitive column and on others, with noise."""
    rng = np.random.default_rng(seed)
    X = np.stack([rng.integers(0, n or 12, rows) for n in LEVELS], axis=1).astype(np.float32)  # noqa: N806
    signal = 2 * X[:, 0] + (X[:, 1] == 1) + (X[:, 2] > 6) * X[:, 3] + rng.normal(0, 0.8, rows)
    return X, np.digitize(signal, (0.7, 2.1))


def grow(cart: PriorityCart, X: np.ndarray, y: np.ndarray, levels: tuple[int, ...] = LEVELS) -> Grown:  # noqa: N803
    return cart.grow(X, y, levels, 3, SENSITIVE)


def leaf_of(grown: Grown, row: np.ndarray) -> int:
    at = 0 if len(grown.feature) else -1
    while at >= 0:
        value = row[grown.feature[at]]
        yes = value == grown.level[at] if grown.level[at] >= 0 else value <= grown.threshold[at]
        at = int(grown.yes[at] if yes else grown.no[at])
    return -1 - at


def paths(grown: Grown) -> Iterator[list[int]]:
    """The features on the way to each leaf."""
    todo: list[tuple[int, list[int]]] = [(0, [])]
    while todo:
        at, path = todo.pop()
        if at < 0:
            yield path
        else:
            todo += [(int(side), [*path, int(grown.feature[at])]) for side in (grown.yes[at], grown.no[at])]


def check_place(grown: Grown, priority: int, exactly: bool) -> int:
    """The sensitive feature at most once a path, and only in its place; returns on how many paths it is."""
    found = 0
    for path in paths(grown):
        assert path.count(SENSITIVE) <= 1
        if SENSITIVE in path:
            others = len(set(path[: path.index(SENSITIVE)]))
            assert others == priority - 1 if exactly else others >= priority - 1
            found += 1
    return found


@pytest.mark.parametrize("min_leaf", [1, 3, 10])
def test_without_a_place_it_is_as_accurate_as_ordinary_cart(min_leaf: int) -> None:
    X, y = people()  # noqa: N806
    grown = grow(PriorityCart(None, min_leaf=min_leaf), X, y)
    ordinary = DecisionTreeClassifier(min_samples_leaf=min_leaf, random_state=0)
    # one column for each level, as here, so that the same splits are open to both
    wide = np.concatenate([X[:, [j]] == np.arange(n) if n else X[:, [j]] for j, n in enumerate(LEVELS)], axis=1)
    expected = ordinary.fit(wide, y).score(wide, y)
    accuracy = grown.counts.max(axis=1).sum() / len(X)
    if min_leaf == 1:
        assert accuracy == pytest.approx(expected)
    else:  # ties are broken differently
        assert accuracy == pytest.approx(expected, abs=0.03)
    assert grown.counts.sum(axis=1).min() >= min_leaf


def test_counts_are_those_of_the_rows_in_each_leaf() -> None:
    X, y = people()  # noqa: N806
    grown = grow(PriorityCart(3, min_leaf=2), X, y)
    counts = np.zeros_like(grown.counts)
    np.add.at(counts, ([leaf_of(grown, row) for row in X], y), 1)
    assert (counts == grown.counts).all()


@pytest.mark.parametrize("priority", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("considered", ["at_place", "until_used"])
def test_the_sensitive_feature_splits_in_its_place(priority: int, considered: str) -> None:
    found = 0
    for seed in range(3):
        grown = grow(PriorityCart(priority, considered), *people(seed))  # type: ignore[arg-type]
        found += check_place(grown, priority, considered == "at_place")
    assert found > 0


@pytest.mark.parametrize("considered", ["at_place", "until_used"])
def test_a_sensitive_feature_of_many_levels_splits_once_a_path(considered: str) -> None:
    X, y = people()  # noqa: N806
    swapped = X[:, [4, 1, 2, 3, 0, 5]]
    y = np.digitize(swapped[:, 0] + np.random.default_rng(1).normal(0, 0.5, len(y)), (1.5, 3.5))
    levels = (5, 3, 0, 2, 2, 0)
    assert check_place(grow(PriorityCart(2, considered), swapped, y, levels), 2, considered == "at_place")  # type: ignore[arg-type]
    ordinary = grow(PriorityCart(None), swapped, y, levels)
    assert max(path.count(SENSITIVE) for path in paths(ordinary)) > 1


def test_the_check_fails_on_ordinary_cart() -> None:
    with pytest.raises(AssertionError):
        check_place(grow(PriorityCart(None), *people()), 3, exactly=False)


def test_place_one_of_a_binary_feature_until_used_is_ordinary_cart() -> None:
    X, y = people()  # noqa: N806
    first, second = (grow(cart, X, y) for cart in (PriorityCart(1, "until_used"), PriorityCart(None)))
    assert (first.feature == second.feature).all()
    assert (first.counts == second.counts).all()


def test_a_place_that_no_path_reaches_leaves_the_feature_out() -> None:
    grown = grow(PriorityCart(len(LEVELS) + 1, "until_used"), *people())
    assert SENSITIVE not in grown.feature


def test_depth_and_pure_nodes_end_a_path() -> None:
    X, y = people()  # noqa: N806
    assert max(map(len, paths(grow(PriorityCart(None, max_depth=3), X, y)))) == 3
    assert grow(PriorityCart(None), X, np.ones_like(y)).counts.tolist() == [[0, len(y), 0]]


def test_exclusive_or_is_learned_though_no_first_split_helps() -> None:
    X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 5, dtype=np.float32)  # noqa: N806
    y = (X[:, 0] != X[:, 1]).astype(int)
    assert PriorityCart(None).grow(X, y, (2, 2), 2, 0).counts.max(axis=1).sum() == len(y)


def test_columns_of_many_values_are_cut_at_quantiles() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 1)).astype(np.float32)  # noqa: N806
    grown = PriorityCart(None, min_leaf=20).grow(X, (X[:, 0] > 0.5).astype(int), (0,), 2, 0)
    assert grown.threshold[0] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    "wrong", [{"priority": 0}, {"considered": "never"}, {"min_leaf": 0}, {"max_depth": 0}], ids=lambda w: next(iter(w))
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        PriorityCart(**{"priority": 1, **wrong})  # type: ignore[arg-type]
