"""Trees as JSON: what is written is read, what is wrong is refused with a sentence, and rows reach their leaves."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from protos.schema import Feature
from protos.tree import Tree

AGE = Feature("age", low=0.0, high=10.0)
COLOUR = Feature("colour", ("red", "green", "blue"), 0.0, 2.0)
KIDS = Feature("kids", ("no", "yes"), 0.0, 1.0)
FEATURES = [AGE, COLOUR, KIDS]

# age <= 4: (colour red or blue: 0, green: 1); age > 4: (kids no: 2, kids yes: (age <= 7: 3, older: 4))
FILE: dict[str, Any] = {
    "format": "mirage tree 1",
    "features": [feature.as_dict() for feature in FEATURES],
    "response": Feature("y", ("a", "b"), 0.0, 1.0, (0.5, 0.5)).as_dict(),
    "rows": 20,
    "leaves": [
        {
            "path": [["age", "<=", 4.0], ["colour", "in", ["red", "blue"]]],
            "region": {"age": [0.0, 4.0], "colour": ["red", "blue"]},
            "counts": [3, 1],
        },
        {
            "path": [["age", "<=", 4.0], ["colour", "not in", ["red", "blue"]]],
            "region": {"age": [0.0, 4.0], "colour": ["green"]},
            "counts": [0, 4],
        },
        {
            "path": [["age", ">", 4.0], ["kids", "in", ["no"]]],
            "region": {"age": [4.0, 10.0], "kids": ["no"]},
            "counts": [2, 2],
        },
        {
            "path": [["age", ">", 4.0], ["kids", "not in", ["no"]], ["age", "<=", 7.0]],
            "region": {"age": [4.0, 7.0], "kids": ["yes"]},
            "counts": [5, 0],
        },
        {
            "path": [["age", ">", 4.0], ["kids", "not in", ["no"]], ["age", ">", 7.0]],
            "region": {"age": [7.0, 10.0], "kids": ["yes"]},
            "counts": [0, 3],
        },
    ],
}


def read(values: Any) -> Tree:
    return Tree.from_json(json.dumps(values).encode())


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    values = copy.deepcopy(FILE)
    change(values)
    return values


def by_hand(row: np.ndarray) -> int:
    age, colour, kids = row
    if age <= 4:
        return 0 if colour in (0, 2) else 1
    if kids == 0:
        return 2
    return 3 if age <= 7 else 4


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    age = rng.integers(0, 101, 500) / 10
    return np.stack([age, rng.integers(0, 3, 500), rng.integers(0, 2, 500)], axis=1).astype(np.float32)


def test_rows_reach_the_leaf_that_they_reach_by_hand(rows: np.ndarray) -> None:
    tree = read(FILE)
    leaf = tree.apply(rows)
    assert leaf.tolist() == [by_hand(row) for row in rows]
    assert (tree.predict_counts(rows) == tree.counts[leaf]).all()


def test_label_is_the_majority_and_the_first_of_equal_classes() -> None:
    tree = read(FILE)
    assert tree.label(np.array([[1, 0, 0], [1, 1, 0], [9, 0, 0], [9, 0, 1]])).tolist() == [0, 1, 0, 1]


def test_thresholds_belong_below_and_are_compared_as_float32() -> None:
    values = changed(lambda v: None)
    text = json.dumps(values).replace("4.0", "0.1")
    tree = Tree.from_json(text.encode())
    below, above = np.float32(0.1), np.nextafter(np.float32(0.1), np.float32(1))
    assert float(below) > 0.1  # what float32 makes of 0.1 lies above the threshold, as for scikit-learn
    assert tree.apply(
        np.array([[np.nextafter(below, np.float32(0)), 1, 0], [below, 1, 0], [above, 1, 0]])
    ).tolist() == [
        1,
        2,
        2,
    ]


@pytest.mark.parametrize("code", [-1.0, 3.0, 0.5, np.nan, np.inf, 1e30])
def test_a_code_that_is_no_level_is_in_no_set(code: float) -> None:
    assert read(FILE).apply(np.array([[1.0, code, 0.0]], dtype=np.float32)).tolist() == [1]


def test_json_comes_back_byte_for_byte(rows: np.ndarray) -> None:
    tree = read(FILE)
    again = Tree.from_json(tree.to_json())
    assert again.to_json() == tree.to_json()
    assert json.loads(tree.to_json()) == FILE
    assert (again.apply(rows) == tree.apply(rows)).all()


def test_consistent_leaves_are_those_that_some_completion_reaches() -> None:
    tree = read(FILE)
    ages = np.array([0, 4, 4.5, 7, 7.5, 10])
    grid = np.stack([a.ravel() for a in np.meshgrid(ages, range(3), range(2), indexing="ij")], axis=1)
    leaf = tree.apply(grid)
    for features in ([1], [2], [0], [2, 1], [0, 1, 2]):
        codes = np.unique(grid[:, features], axis=0)
        reached = np.zeros((len(codes), len(tree.counts)), dtype=bool)
        for k, code in enumerate(codes):
            reached[k, leaf[(grid[:, features] == code).all(axis=1)]] = True
        assert (tree.consistent(features, codes) == reached).all()
    assert not tree.consistent([1], np.array([[3.0], [-1.0], [0.5]]))[:, :2].any()


def test_splits_and_confusion() -> None:
    tree = read(FILE)
    assert [tree.splits_on(feature.name) for feature in FEATURES] == [2, 1, 1]
    assert tree.confusion().tolist() == [[10, 0], [3, 7]]
    with pytest.raises(ValueError, match="not in"):
        tree.splits_on("height")


def test_a_single_leaf_is_a_tree() -> None:
    values = changed(lambda v: v.update(leaves=[{"path": [], "region": {}, "counts": [10, 10]}]))
    tree = read(values)
    assert tree.apply(np.zeros((3, 3))).tolist() == [0, 0, 0]
    assert tree.consistent([2], np.array([[0], [1]])).all()
    assert Tree.from_json(tree.to_json()).counts.tolist() == [[10, 10]]


def _leaf(values: dict[str, Any], leaf: int) -> Any:
    return values["leaves"][leaf]


def _again(values: dict[str, Any], path: list[Any]) -> None:
    values["leaves"].append({**_leaf(values, 4), "path": path})


WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another format": (lambda v: v.update(format="tree"), "no tree file"),
    "no rows": (lambda v: v.pop("rows"), "missing"),
    "too many rows": (lambda v: v.update(rows=21), "add up to 20, and it has 21 rows"),
    "half a row": (lambda v: v.update(rows=20.5), "no whole number"),
    "a negative count": (lambda v: _leaf(v, 1).update(counts=[-1, 5]), "leaf 1 of the tree has a negative count"),
    "half a count": (lambda v: _leaf(v, 1).update(counts=[0.5, 3.5]), "leaf 1 of the tree needs 2 whole numbers"),
    "a true count": (lambda v: _leaf(v, 1).update(counts=[True, 3]), "needs 2 whole numbers"),
    "a huge count": (lambda v: _leaf(v, 1).update(counts=[0, 10**30]), "wrong kind"),
    "an empty leaf": (lambda v: _leaf(v, 1).update(counts=[0, 0]), "leaf 1 of the tree holds no training row"),
    "a class too many": (lambda v: _leaf(v, 0).update(counts=[1, 2, 3]), "leaf 0 of the tree needs 2 whole numbers"),
    "another prior": (lambda v: v["response"].update(prior=[0.4, 0.6]), "0.5 of the rows.*'a'.*says 0.4"),
    "no prior": (lambda v: v["response"].update(prior=[]), "says nothing"),
    "a prior that is none": (lambda v: v["response"].update(prior=[0.4, 0.4]), "sum to one"),
    "a numeric response": (lambda v: v["response"].update(levels=[], prior=[]), "classes|whole numbers"),
    "levels of a wrong kind": (lambda v: v["features"][1].update(levels=[1, 2, 3]), "texts"),
    "no features": (
        lambda v: v.update(features=[], leaves=[{"path": [], "region": {}, "counts": [10, 10]}]),
        "no features",
    ),
    "a name twice": (lambda v: v["response"].update(name="age"), "same name"),
    "an unknown feature": (lambda v: _leaf(v, 0)["path"][1].__setitem__(0, "size"), "'size', which is not in"),
    "an unknown level": (lambda v: _leaf(v, 0)["path"][1].__setitem__(2, ["pink"]), "level of 'colour'"),
    "a number for levels": (lambda v: _leaf(v, 0)["path"][1].__setitem__(2, 4), "'colour' is nominal"),
    "levels for a number": (lambda v: _leaf(v, 0)["path"][0].__setitem__(2, ["4"]), "'age' is numeric"),
    "nan": (lambda v: [leaf["path"][0].__setitem__(2, float("nan")) for leaf in v["leaves"]], "do not form|already"),
    "a huge threshold": (lambda v: [le["path"][0].__setitem__(2, 10**400) for le in v["leaves"]], "too large"),
    "a strange condition": (lambda v: _leaf(v, 0)["path"].__setitem__(0, 5), "is not .feature, relation, value."),
    "another region": (lambda v: _leaf(v, 2)["region"].update(age=[5.0, 10.0]), "region of leaf 2.*'age'"),
    "a region too small": (lambda v: _leaf(v, 2)["region"].pop("kids"), "region of leaf 2.*'kids'"),
    "a region of another feature": (lambda v: _leaf(v, 2)["region"].update(colour=["red"]), "leaf 2.*'colour'"),
    "no region": (lambda v: _leaf(v, 2).update(region=None), "leaf 2 of the tree is no object"),
    "a gap": (lambda v: v["leaves"].pop(4), "leave a gap.*'age'"),
    "the same leaf twice": (lambda v: v["leaves"].append(_leaf(v, 4)), "leaf 5 of the tree overlaps"),
    "a leaf below a leaf": (lambda v: _again(v, [*_leaf(v, 4)["path"], ["kids", "in", ["no"]]]), "4 and 5 .* overlap"),
    "a leaf above leaves": (lambda v: _again(v, _leaf(v, 4)["path"][:1]), "leaf 5.*overlaps"),
    "a leaf at the root": (lambda v: _again(v, []), "no conditions"),
    "another threshold": (lambda v: _leaf(v, 0)["path"][0].__setitem__(2, 5.0), "do not form a tree.*'age'"),
    "no leaves": (lambda v: v.update(leaves=[]), "0 leaves"),
    "a path of a wrong kind": (lambda v: _leaf(v, 0).update(path="age"), "path of leaf 0"),
    "a long path": (lambda v: _leaf(v, 0).update(path=[["age", "<=", 4.0]] * 1001), "path of leaf 0"),
    "a question that is answered": (
        lambda v: [leaf["path"].insert(1, ["age", ">", 4.0]) for leaf in v["leaves"][2:]]
        + [v["leaves"].append({"path": [["age", ">", 4.0], ["age", "<=", 4.0]], "region": {}, "counts": [1, 1]})],
        "answer is known already",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused(name: str) -> None:
    change, sentence = WRONG[name]
    with pytest.raises(ValueError, match=sentence) as caught:
        read(changed(change))
    assert "\n" not in str(caught.value)
    read(FILE)  # unchanged, it is accepted


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"5", b"[" * 100_000, b'{"format": "mirage tree 1"}'])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|no tree file|missing"):
        Tree.from_json(data)


def test_a_deep_chain_is_read_without_recursion(rows: np.ndarray) -> None:
    depth = 400
    cuts = [10 * (i + 1) / (depth + 1) for i in range(depth)]
    leaves = []
    for i in range(depth + 1):
        path = [["age", ">", cut] for cut in cuts[:i]] + [["age", "<=", cut] for cut in cuts[i : i + 1]]
        low, high = ([0.0, *cuts][i], [*cuts, 10.0][i])
        leaves.append({"path": path, "region": {"age": [low, high]}, "counts": [1, 1]})
    tree = read(changed(lambda v: v.update(leaves=leaves, rows=2 * (depth + 1))))
    assert (tree.apply(rows) == np.searchsorted(cuts, rows[:, 0].astype(float))).all()


def test_rows_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"needs \(N, 3\)"):
        read(FILE).apply(np.zeros((2, 4)))
