"""Pruning against all subtrees of small trees, and the trees that tables give."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from defenses.training import Grown, PriorityCart, Pruning
from oracle_server.victims.table_models import grow, grow_priority
from oracle_server.victims.tables import table_named

LEVELS = [3, 2, 0, 0]


def small(seed: int, rows: int = 40) -> tuple[np.ndarray, np.ndarray, Grown]:
    rng = np.random.default_rng(seed)
    people = np.column_stack([rng.integers(0, 3, rows), rng.integers(0, 2, rows), rng.random((rows, 2))])
    answers = (people[:, 0] + people[:, 1] + rng.integers(0, 2, rows)).astype(np.int64) % 3
    tree = PriorityCart(None, min_leaf=4, max_depth=3).grow(people.astype(np.float32), answers, LEVELS, 3, 0)
    return people.astype(np.float32), answers, tree


def subtrees(tree: Grown, t: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Wrong rows, leaves and counts of every way to cut the tree below node t."""
    if t < 0:
        counts = tree.counts[-1 - t]
        yield int(counts.sum() - counts.max()), 1, counts
        return
    total = np.zeros(tree.counts.shape[1], dtype=np.int64)
    for wrong, leaves, counts in subtrees(tree, int(tree.yes[t])):
        for more, others, rest in subtrees(tree, int(tree.no[t])):
            total = counts + rest
            yield wrong + more, leaves + others, total
    yield int(total.sum() - total.max()), 1, total


def cost(tree: Grown) -> tuple[int, int]:
    return int((tree.counts.sum(1) - tree.counts.max(1)).sum()), len(tree.counts)


def reached(tree: Grown, row: np.ndarray) -> int:
    t = 0 if len(tree.feature) else -1
    while t >= 0:
        value = row[tree.feature[t]]
        yes = value == tree.level[t] if tree.level[t] >= 0 else value <= tree.threshold[t]
        t = int(tree.yes[t] if yes else tree.no[t])
    return -1 - t


@pytest.mark.parametrize("alpha", [0.001, 0.01, 0.03, 0.1, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_the_smallest_of_the_best_subtrees(seed: int, alpha: float) -> None:
    people, answers, tree = small(seed)
    best = min((wrong + alpha * len(people) * leaves, leaves, wrong) for wrong, leaves, _ in subtrees(tree, 0))
    pruned = Pruning(alpha)(tree)
    wrong, leaves = cost(pruned)
    assert wrong + alpha * len(people) * leaves == pytest.approx(best[0])
    assert leaves == min(
        others for other, others, _ in subtrees(tree, 0) if other + alpha * len(people) * others < best[0] + 1e-9
    )
    counts = np.zeros_like(pruned.counts)
    np.add.at(counts, ([reached(pruned, row) for row in people], answers), 1)
    assert (counts == pruned.counts).all()


def test_alpha_none_is_the_same_tree_and_more_cuts_more() -> None:
    _, _, tree = small(0)
    assert Pruning(0.0).off
    assert Pruning(0.0)(tree) is tree
    sizes = [len(Pruning(alpha)(tree).counts) for alpha in (0.0, 0.01, 0.05, 1.0)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[2]
    assert sizes[-1] == 1
    for alpha in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="must be a number from 0"):
            Pruning(alpha)


@pytest.mark.parametrize("priority", [None, 2])
def test_a_pruned_tree_of_a_table(priority: int | None) -> None:
    table = table_named("affairs601")
    rows = np.arange(0, len(table.X), 2)

    def made(prune: float) -> object:
        return grow(table, rows, prune=prune) if priority is None else grow_priority(table, rows, priority, prune=prune)

    whole, same, pruned, root = (made(alpha) for alpha in (0.0, 0.0, 0.004, 1.0))
    assert whole.to_json() == same.to_json()
    assert len(root.counts) == 1 < len(pruned.counts) < len(whole.counts)
    counts = np.zeros_like(pruned.counts)
    np.add.at(counts, (pruned.apply(table.X[rows]), table.y[rows]), 1)
    assert (counts == pruned.counts).all()
