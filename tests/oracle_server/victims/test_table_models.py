"""Trees and regressions of tables, and the samples that they are grown on."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression as Reference
from sklearn.tree import DecisionTreeClassifier

from oracle_server.victims.table import nominal, numeric, table_of
from oracle_server.victims.table_models import fit_linear, grow, grow_priority, halves, ideal, ideal_table
from oracle_server.victims.tables import Table, table_named
from protos.tree import Tree


@pytest.fixture(scope="module")
def affairs() -> Table:
    return table_named("affairs601")


@pytest.fixture(scope="module")
def mixed() -> Table:
    """400 people: a nominal column of four levels, a binary one, a number, three classes."""
    rng = np.random.default_rng(0)
    colour, kids, age = rng.integers(0, 4, 400), rng.integers(0, 2, 400), rng.integers(18, 60, 400)
    y = np.digitize((colour == 2) + kids * (age > 40) + rng.normal(0, 0.4, 400), (0.5, 1.5))
    return table_of(
        "mixed",
        {
            "colour": nominal("colour", [str(c) for c in colour], ("0", "1", "2", "3")),
            "kids": nominal("kids", [str(k) for k in kids], ("0", "1")),
            "age": numeric("age", age),
            "y": nominal("y", [f"c{v}" for v in y], ("c0", "c1", "c2")),
        },
        "y",
        ("kids",),
    )


def check_counts(tree: Tree, table: Table, rows: np.ndarray) -> None:
    """Each leaf counts the training rows that reach it."""
    counts = np.zeros_like(tree.counts)
    np.add.at(counts, (tree.apply(table.X[rows]), table.y[rows]), 1)
    assert (counts == tree.counts).all()
    assert tree.rows == len(rows)


@pytest.mark.parametrize("settings", [{}, {"min_leaf": 3}, {"max_depth": 5}], ids=["unpruned", "pruned", "shallow"])
@pytest.mark.parametrize("name", ["affairs", "mixed"])
def test_the_tree_predicts_as_the_one_that_scikit_learn_grew(
    name: str, settings: dict[str, int], request: pytest.FixtureRequest
) -> None:
    table: Table = request.getfixturevalue(name)
    rows = np.arange(0, len(table.X), 2)
    tree = grow(table, rows, **settings)
    check_counts(tree, table, rows)
    wide = table.X
    if name == "mixed":
        wide = np.concatenate([table.X[:, [0]] == np.arange(4), table.X[:, 1:]], axis=1).astype(np.float32)
    known = {"min_leaf": "min_samples_leaf", "max_depth": "max_depth"}
    reference = DecisionTreeClassifier(random_state=0, **{known[key]: value for key, value in settings.items()})
    reference.fit(wide[rows], table.y[rows])
    assert (tree.label(table.X) == reference.predict(wide)).all()
    assert len(tree.counts) == reference.get_n_leaves()
    shares = tree.predict_counts(table.X)
    assert shares / shares.sum(axis=1, keepdims=True) == pytest.approx(reference.predict_proba(wide))


def test_it_is_read_back_as_it_was_written(mixed: Table) -> None:
    tree = grow(mixed, np.arange(400))
    again = Tree.from_json(tree.to_json())
    assert again.to_json() == tree.to_json()
    assert (again.apply(mixed.X) == tree.apply(mixed.X)).all()
    assert b'["colour","not in",["2"]]' in tree.to_json()


def test_priors_are_those_of_the_training_rows(affairs: Table) -> None:
    rows = np.arange(100)
    tree = grow(affairs, rows)
    j = affairs.position("affair")
    assert tree.features[j].prior[1] == pytest.approx(affairs.X[rows, j].mean())
    assert tree.features[j].prior != affairs.features[j].prior


def test_a_class_that_the_rows_lack_has_no_counts(affairs: Table) -> None:
    rows = np.flatnonzero(affairs.y != 1)
    tree = grow(affairs, rows)
    check_counts(tree, affairs, rows)
    assert tree.counts[:, 1].sum() == 0


def test_grow_needs_classes_and_fit_linear_numbers(affairs: Table) -> None:
    diabetes = table_named("diabetes")
    for wrong in (lambda: grow(diabetes, np.arange(9)), lambda: grow_priority(diabetes, np.arange(9), 1)):
        with pytest.raises(ValueError, match="needs classes"):
            wrong()
    with pytest.raises(ValueError, match="needs numbers"):
        fit_linear(affairs, np.arange(9))


def test_the_ideal_tree_knows_the_others_and_the_response(affairs: Table) -> None:
    told = ideal_table(affairs, "affair")
    assert [feature.name for feature in told.features][-1] == "ratemarr"
    assert "affair" not in [feature.name for feature in told.features]
    assert not told.features[-1].nominal  # a rating
    assert (told.X[:, -1] == affairs.y + 1).all()
    tree = ideal(affairs, np.arange(601), "affair")
    assert (tree.label(told.X) == told.y).mean() > 0.95
    assert ideal_table(table_named("gss"), "unem10").features[-1].levels[1] == "pretty happy"


def test_linear_regression_is_least_squares() -> None:
    table = table_named("diabetes")
    rows = np.arange(0, 442, 2)
    mine = fit_linear(table, rows)
    reference = Reference().fit(table.X[rows].astype(float), table.y[rows])  # a binary column needs no indicators
    assert mine.predict(table.X) == pytest.approx(reference.predict(table.X.astype(float)))
    assert mine.error_std == pytest.approx(np.std(table.y[rows] - mine.predict(table.X[rows])))
    assert mine.response.low < table.y.min() + 50
    sex = table.position("sex")
    assert mine.features[sex].prior[1] == pytest.approx(table.X[rows, sex].mean())


def check_stratified(table: Table, inside: np.ndarray, fraction: float) -> None:
    """Each class, and each level of the sensitive features, gives its share, up to a row for each stratum."""
    keys = [table.y] if table.response.nominal else []
    for column in [*keys, *(table.X[:, table.position(name)] for name in table.sensitive)]:
        for value in np.unique(column):
            assert (column[inside] == value).sum() == pytest.approx(fraction * (column == value).sum(), abs=6)


@pytest.mark.parametrize("fraction", [0.5, 0.9])
@pytest.mark.parametrize("name", ["affairs601", "gss", "diabetes"])
def test_samples_are_stratified_disjoint_and_differ(name: str, fraction: float) -> None:
    table = table_named(name)
    samples = halves(table, range(3), fraction)
    for inside, outside in samples:
        assert (np.sort(np.concatenate([inside, outside])) == np.arange(len(table.X))).all()
        assert len(inside) == pytest.approx(fraction * len(table.X), abs=1)
        check_stratified(table, inside, fraction)
    assert (samples[0][0] != halves(table, [1], fraction)[0][0]).any()
    assert (samples[1][0] == halves(table, [1], fraction)[0][0]).all()


def test_the_check_fails_on_a_sample_that_is_not_stratified(affairs: Table) -> None:
    with pytest.raises(AssertionError):
        check_stratified(affairs, np.argsort(affairs.y)[:300], 0.5)
    with pytest.raises(ValueError, match="fraction=1"):
        halves(affairs, [0], 1)


def test_a_tree_of_the_countermeasure_is_a_tree(mixed: Table) -> None:
    rows = np.arange(0, 400, 2)
    for priority in (None, 1, 2, 3):
        tree = grow_priority(mixed, rows, priority)
        check_counts(tree, mixed, rows)
        assert Tree.from_json(tree.to_json()).to_json() == tree.to_json()
    ordinary, last = grow_priority(mixed, rows, None), grow_priority(mixed, rows, 4)
    assert ordinary.splits_on("kids") > 0
    assert last.splits_on("kids") == 0
    assert grow_priority(mixed, rows, 4, sensitive="colour").splits_on("kids") > 0


def test_people_inside_are_told_apart_from_people_outside(affairs: Table) -> None:
    """Leaves of an unpruned tree hold one person's class each: whom they know, they know by heart."""
    ((inside, outside),) = halves(affairs, [0])
    tree = grow(affairs, inside)
    right = tree.label(affairs.X) == affairs.y
    assert right[inside].mean() > 0.9
    assert right[outside].mean() < 0.5
