"""Trees and linear regressions of tables, and the samples that they are grown on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from defenses.training import Grown, PriorityCart, Pruning
from oracle_server.models.regression import LinearRegression
from oracle_server.victims.table import Table
from protos.schema import Feature
from protos.tree import Tree
from protos.tree_nodes import Nodes

__all__ = ["fit_linear", "grow", "grow_priority", "halves", "ideal", "ideal_table"]

Column = tuple[int, int]  # position of a feature; the level that an indicator stands for, or -1: the value itself


def grow(
    table: Table,
    rows: ArrayLike,
    *,
    min_leaf: int = 1,
    max_depth: int | None = None,
    prune: float = 0.0,
    seed: int = 0,
) -> Tree:
    """An ordinary classification tree (scikit-learn's CART, Gini) of the response on these rows of a table.

    Pruned by `Pruning` with alpha `prune`; at least `min_leaf` training rows a leaf, at most `max_depth` splits on a
    path. A nominal feature with more than two levels is split on one level against the rest. `seed` breaks ties between
    equal splits.
    """
    from sklearn.tree import DecisionTreeClassifier

    chosen = np.asarray(rows)
    told = table.with_priors(chosen)
    if not told.response.nominal:
        raise ValueError(f"the response {told.response.name!r} is numeric: a classification tree needs classes")
    columns = _columns(told.features)
    cart = DecisionTreeClassifier(min_samples_leaf=min_leaf, max_depth=max_depth, random_state=seed)
    grown = cart.fit(_expand(told.X[chosen], columns), told.y[chosen]).tree_
    inner = grown.children_left >= 0
    # counts of classes that are missing from these rows are zero; scikit-learn leaves such classes out
    counts = np.zeros((int((~inner).sum()), len(told.response.levels)), dtype=np.int64)
    shares = grown.value[~inner, 0, :] * grown.n_node_samples[~inner, None]
    counts[:, cart.classes_.astype(int)] = np.rint(shares)
    place = np.where(inner, np.cumsum(inner) - 1, -np.cumsum(~inner))
    feature, level = np.array(columns)[grown.feature[inner]].reshape(-1, 2).T
    binary = np.array([len(f.levels) == 2 for f in told.features])[feature]
    below, above = place[grown.children_left[inner]], place[grown.children_right[inner]]
    # an indicator above 1/2 has its level; a code below 1/2 is the first of two
    yes, no = np.where(level >= 0, above, below), np.where(level >= 0, below, above)
    whole = Grown(feature, np.where(binary, 0, level), grown.threshold[inner], yes, no, counts)
    return _tree(told, Pruning(prune)(whole), len(chosen))


def grow_priority(
    table: Table,
    rows: ArrayLike,
    priority: int | None,
    *,
    sensitive: str | None = None,
    considered: Literal["at_place", "until_used"] = "at_place",
    min_leaf: int = 1,
    max_depth: int | None = None,
    prune: float = 0.0,
) -> Tree:
    """A tree of the countermeasure `PriorityCart`, pruned by `Pruning` with alpha `prune`. The sensitive feature is by
    default the table's first one.
    """
    chosen = np.asarray(rows)
    told = table.with_priors(chosen)
    if not told.response.nominal:
        raise ValueError(f"the response {told.response.name!r} is numeric: a classification tree needs classes")
    cart = PriorityCart(priority, considered, min_leaf, max_depth)
    grown = cart.grow(
        told.X[chosen],
        told.y[chosen],
        [len(feature.levels) for feature in told.features],
        len(told.response.levels),
        told.position(sensitive or told.sensitive[0]),
    )
    return _tree(told, Pruning(prune)(grown), len(chosen))


def ideal_table(table: Table, target: str) -> Table:
    """The table of a model that predicts the feature `target` from all others and from the response.

    A response whose classes are numbers becomes a numeric feature.
    """
    j = table.position(target)
    answer = table.response
    values = table.y
    if answer.nominal and all(_is_number(level) for level in answer.levels):
        numbers = np.array([float(level) for level in answer.levels])
        answer, values = Feature(answer.name, low=float(numbers.min()), high=float(numbers.max())), numbers[table.y]
    others = [k for k in range(len(table.features)) if k != j]
    features = (*(table.features[k] for k in others), answer)
    X = np.column_stack([table.X[:, others], values.astype(np.float32)])
    sensitive = tuple(name for name in table.sensitive if name != target) or tuple(
        f.name for f in features if f.nominal
    )
    made = Table(
        f"{table.name}-{target}",
        features,
        table.features[j],
        X,
        table.X[:, j].astype(np.int64),
        sensitive,
        table.credit,
        table.terms,
    )
    return made.with_priors(np.arange(len(X)))


def ideal(
    table: Table,
    rows: ArrayLike,
    target: str,
    *,
    min_leaf: int = 1,
    max_depth: int | None = None,
    seed: int = 0,
) -> Tree:
    """A tree of the same kind that predicts the feature `target` from all others and the response."""
    made = ideal_table(table, target)
    return grow(made, rows, min_leaf=min_leaf, max_depth=max_depth, seed=seed)


def fit_linear(table: Table, rows: ArrayLike) -> LinearRegression:
    """Ordinary least squares with an intercept; nominal features as indicators against their first level."""
    chosen = np.asarray(rows)
    told = table.with_priors(chosen)
    if told.response.nominal:
        raise ValueError(f"the response {told.response.name!r} has classes: a linear regression needs numbers")
    return LinearRegression.fit(told.features, told.response, told.X[chosen], told.y[chosen])


def halves(
    table: Table, seeds: Sequence[int], fraction: float = 0.5
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Random samples, one for each seed: the rows inside, `fraction` of all, and the rows outside, both sorted.

    Stratified: each combination of response (or fifth of a numeric one) and sensitive features gives its share, up to
    one row.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction={fraction} must lie between 0 and 1")
    N = len(table.X)
    answer = table.y if table.response.nominal else np.searchsorted(np.quantile(table.y, (0.2, 0.4, 0.6, 0.8)), table.y)
    keys = [table.X[:, table.position(name)] for name in table.sensitive]
    chosen = np.diff(np.floor(np.arange(N + 1) * fraction + 0.5)) > 0  # spread evenly, so over each stratum as well
    out = []
    for seed in seeds:
        order = np.lexsort((np.random.default_rng(seed).random(N), *keys, answer))
        inside = np.zeros(N, dtype=np.bool_)
        inside[order[chosen]] = True
        out.append((np.flatnonzero(inside), np.flatnonzero(~inside)))
    return out


def _columns(features: Sequence[Feature]) -> list[Column]:
    out: list[Column] = []
    for j, feature in enumerate(features):
        single = len(feature.levels) > 2
        out += [(j, level) for level in range(len(feature.levels))] if single else [(j, -1)]
    return out


def _expand(X: NDArray[np.float32], columns: Sequence[Column]) -> NDArray[np.float32]:
    position, level = np.array(columns).T
    return np.where(level < 0, X[:, position], X[:, position] == level).astype(np.float32)


def _tree(table: Table, grown: Grown, rows: int) -> Tree:
    nodes = _nodes(table.features, grown.feature, grown.level, grown.threshold, grown.yes, grown.no)
    return Tree(table.features, table.response, grown.counts, rows, nodes)


def _nodes(
    features: tuple[Feature, ...],
    feature: NDArray[np.intp],
    level: NDArray[np.intp],
    threshold: NDArray[np.float64],
    yes: NDArray[np.intp],
    no: NDArray[np.intp],
) -> Nodes:
    """Nodes that ask for one level, or where that is -1 for a value up to a threshold."""
    most = max(len(f.levels) for f in features)
    sets = np.eye(max(most, 1), most + 1, dtype=np.bool_)  # each single level
    return Nodes(features, feature, np.where(level < 0, threshold, 0.0), level, sets, yes, no)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
