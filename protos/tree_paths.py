"""Rebuild the nodes of a tree from the paths of its leaves, as a file gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from protos.schema import Feature
from protos.tree_nodes import MOST_LEAVES, Nodes

__all__ = ["MOST_DEPTH", "nodes_of_paths"]

MOST_DEPTH = 1000
_MOST_SETS = 100_000_000  # cells of the table of level sets

Question = tuple[int, Any]  # position of a feature; a threshold, or the codes of its levels


def nodes_of_paths(features: tuple[Feature, ...], paths: Sequence[Any]) -> Nodes:
    """The nodes whose leaves, in this order, have these paths: lists of [feature, "<=", ">", "in" or "not in", value].

    Raises `ValueError` with one sentence for paths that overlap, leave a gap, split differently at the same place,
    name an unknown feature or level, or are too many or too long.
    """
    if not 1 <= len(paths) <= MOST_LEAVES:
        raise ValueError(f"a tree with {len(paths):,} leaves cannot be read: 1 to {MOST_LEAVES:,} can")
    reader = _Conditions(features)
    questions: list[Question] = []
    children: list[list[int | None]] = []  # of each node: if the answer is yes, if it is no; -1 - i for leaf i
    for leaf, path in enumerate(paths):
        if not isinstance(path, list) or len(path) > MOST_DEPTH:
            raise ValueError(f"the path of leaf {leaf} of the tree is no list of at most {MOST_DEPTH} conditions")
        at, side = -1, 0  # the place to fill: a side of a node; -1 for the place of the root
        for condition in path:
            question, next_side = reader.read(condition)
            node = (0 if questions else None) if at < 0 else children[at][side]
            if node is None:
                node = len(questions)
                questions.append(question)
                children.append([None, None])
                if at >= 0:
                    children[at][side] = node
            elif node < 0:
                raise ValueError(f"the paths of leaves {-1 - node} and {leaf} of the tree overlap")
            elif questions[node] != question:
                name = features[question[0]].name
                raise ValueError(
                    f"the paths of the tree do not form a tree: that of leaf {leaf} asks for {name!r:.60} where another"
                    " asks differently"
                )
            at, side = node, next_side
        if at < 0 and (questions or leaf):
            raise ValueError(f"the path of leaf {leaf} of the tree has no conditions, so it overlaps all others")
        if at >= 0:
            if children[at][side] is not None:
                raise ValueError(f"the path of leaf {leaf} of the tree overlaps another leaf's")
            children[at][side] = -1 - leaf
    for (j, _), sides in zip(questions, children, strict=True):
        if None in sides:
            raise ValueError(
                f"the paths of the tree leave a gap: one side of a split on {features[j].name!r:.60} is missing"
            )
    return _nodes(features, questions, children)


class _Conditions:
    """Turns conditions into questions; equal ones are read once."""

    def __init__(self, features: tuple[Feature, ...]) -> None:
        self._features = features
        self._positions = {feature.name: j for j, feature in enumerate(features)}
        self._codes = [{level: code for code, level in enumerate(feature.levels)} for feature in features]
        self._known: dict[Any, tuple[int, ...]] = {}

    def read(self, condition: Any) -> tuple[Question, int]:
        """The question, and the side on which the condition holds: 0 for yes, 1 for no."""
        try:
            name, relation, value = condition
            j = self._positions.get(name)
        except (TypeError, ValueError):
            raise ValueError(f"a condition of the tree is not [feature, relation, value]: {condition!r:.80}") from None
        if j is None:
            raise ValueError(f"a path of the tree names the feature {name!r:.60}, which is not in its schema")
        if self._features[j].nominal:
            if relation not in ("in", "not in") or not isinstance(value, list):
                raise ValueError(
                    f'{name!r:.60} is nominal: ask "in" or "not in" a list of levels, not {condition!r:.80}'
                )
            return (j, self._levels(j, value)), int(relation == "not in")
        if relation not in ("<=", ">") or type(value) not in (int, float):
            raise ValueError(f'{name!r:.60} is numeric: ask "<=" or ">" a number, not {condition!r:.80}')
        return (j, value), int(relation == ">")

    def _levels(self, j: int, levels: list[Any]) -> tuple[int, ...]:
        try:
            key = (j, *levels)
            if key not in self._known:
                self._known[key] = tuple(sorted({self._codes[j][level] for level in levels}))
            return self._known[key]
        except (KeyError, TypeError):
            name = self._features[j].name
            raise ValueError(f"a path of the tree names a level of {name!r:.60} that is not in its schema") from None


def _nodes(features: tuple[Feature, ...], questions: list[Question], children: list[list[int | None]]) -> Nodes:
    numeric = [not features[j].nominal for j, _ in questions]
    sets: dict[tuple[int, ...], int] = {}
    members = [
        -1 if is_number else sets.setdefault(value, len(sets))
        for is_number, (_, value) in zip(numeric, questions, strict=True)
    ]
    columns = max((len(feature.levels) for feature in features), default=0) + 1
    if len(sets) * columns > _MOST_SETS:
        raise ValueError(f"the tree is too large: {len(sets):,} different sets of levels")
    table = np.zeros((max(len(sets), 1), columns), dtype=np.bool_)
    for levels, place in sets.items():
        table[place, list(levels)] = True
    try:
        thresholds = [
            float(value) if is_number else 0.0 for is_number, (_, value) in zip(numeric, questions, strict=True)
        ]
    except OverflowError:
        raise ValueError("a threshold of the tree is too large") from None
    sides = np.array(children, dtype=np.intp).reshape(-1, 2)
    return Nodes(
        features,
        np.array([j for j, _ in questions], dtype=np.intp),
        np.array(thresholds, dtype=np.float64),
        np.array(members, dtype=np.intp),
        table,
        sides[:, 0],
        sides[:, 1],
    )
