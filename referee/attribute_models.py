"""The models of an attribute experiment, and the files that say what the attacker knows of everybody."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from oracle_server.models.regression import host_regression
from oracle_server.models.repository import Repository
from oracle_server.models.tree import host_tree
from oracle_server.victims.table_files import read_table
from oracle_server.victims.table_models import fit_linear, grow, grow_priority, halves, ideal_table
from oracle_server.victims.tables import TABLES, Table, TableUnavailableError, table_named
from protos.schema import Feature
from protos.tree import Tree
from referee.atomic import write_atomically
from referee.attribute_plan import Experiment

__all__ = ["Grown", "grow_sample", "load_table", "people_files", "private_files", "samples_of"]

_GROWTH: dict[str, dict[str, Any]] = {"unpruned": {}, "pruned": {"min_leaf": 3}, "shallow": {"max_depth": 5}}


@dataclass(frozen=True, eq=False)
class Grown:
    """A sample's models, each with what hosts it under its name, and how good the attacked one is.

    `fit`: accuracy of a tree, R^2 of a regression, for the people in the sample and the others; NaN for nobody.
    `splits` on the sensitive feature and `leaves` are a tree's.
    """

    host: dict[str, Callable[[Repository, str], object]]
    fit: tuple[float, float]
    splits: int = -1
    leaves: int = 0


def load_table(experiment: Experiment) -> Table:
    """The experiment's table, checked against it.

    Raises:
        LookupError: it is not on this machine; the sentence says how to get it.
        ValueError: the experiment doesn't fit it.
    """
    try:
        name = experiment.table
        table = table_named(name) if name in TABLES else _from_files(Path(name))
    except TableUnavailableError as error:
        raise LookupError(str(error)) from error
    for name in experiment.unknown:
        if not table.features[table.position(name)].nominal:
            raise ValueError(f"experiment {experiment.name}: {name!r} is numeric, only nominal features are inferred")
    if table.response.nominal == (experiment.model == "linear"):
        what = "classes: choose a tree" if table.response.nominal else 'numbers: write model = "linear"'
        raise ValueError(f"experiment {experiment.name}: the response {table.response.name!r} has {what}")
    return table


def private_files(experiment: Experiment) -> list[Path]:
    """The files of a table that no package carries: the attacker may not open them."""
    schema = Path(experiment.table)
    return [] if experiment.table in TABLES else [schema.resolve(), schema.with_suffix(".csv").resolve()]


def _from_files(schema: Path) -> Table:
    """A CSV file beside a schema of the same name."""
    rows = schema.with_suffix(".csv")
    if missing := next((path for path in (schema, rows) if not path.exists()), None):
        raise TableUnavailableError(
            f"there is no {missing}: a table is one of {', '.join(TABLES)}, or x.toml and x.csv"
        )
    return read_table(rows, schema)


def samples_of(experiment: Experiment, table: Table) -> np.ndarray:
    """Who each model is grown on, (S, N) bool: everybody, or stratified samples with seeds of their own."""
    inside = np.zeros((experiment.samples, len(table.X)), dtype=bool)
    if experiment.whole:
        return ~inside
    seeds = range(experiment.seed, experiment.seed + experiment.samples)
    for sample, (rows, _) in zip(inside, halves(table, seeds, experiment.fraction), strict=True):
        sample[rows] = True
    return inside


def grow_sample(experiment: Experiment, table: Table, inside: np.ndarray, number: int) -> Grown:
    """The models of one sample: `sNNN` is attacked, `iNNN` answers the ideal adversary, where there is one."""
    rows, outside = np.flatnonzero(inside), np.flatnonzero(~inside)
    name, seed = f"s{number:03d}", experiment.seed + number
    if experiment.model == "linear":
        regression = fit_linear(table, rows)
        error = table.y - regression.predict(table.X)
        fit = (_r2(error[rows], table.y[rows]), _r2(error[outside], table.y[outside]))
        return Grown({name: lambda repository, name: host_regression(regression, repository, name)}, fit)
    tree = _grow(experiment, table, rows, seed)
    label = tree.label(table.X)
    confusion = None
    if experiment.confusion == "held-out":
        confusion = np.zeros((len(table.response.levels),) * 2, dtype=np.int64)
        np.add.at(confusion, (table.y[outside], label[outside]), 1)
    host = {name: _tree_host(tree, confusion)}
    if any(one.ideal for one in experiment.adversaries):
        asked = _known_alone(ideal_table(table, experiment.unknown[0]), experiment)
        host[f"i{number:03d}"] = _tree_host(_grow(experiment, asked, rows, seed), None)
    right = label == table.y
    fit = (float(right[rows].mean()), float(right[outside].mean()) if len(outside) else np.nan)
    return Grown(host, fit, tree.splits_on(experiment.unknown[0]), len(tree.counts))


def _grow(experiment: Experiment, table: Table, rows: np.ndarray, seed: int) -> Tree:
    """The same kind of tree for the response or, by a table turned round, for the attribute."""
    if experiment.model == "priority" and experiment.unknown[0] in [feature.name for feature in table.features]:
        return grow_priority(table, rows, experiment.priority, sensitive=experiment.unknown[0])
    return grow(table, rows, seed=seed, **_GROWTH.get(experiment.model, {}))


def _tree_host(tree: Tree, confusion: np.ndarray | None) -> Callable[[Repository, str], object]:
    return lambda repository, name: host_tree(tree, repository, name, confusion=confusion)


def _r2(error: np.ndarray, y: np.ndarray) -> float:
    """Share of the variance that a regression explains; NaN for nobody."""
    return float(1 - (error**2).mean() / y.var()) if len(y) > 1 and y.var() > 0 else np.nan


def _known_alone(table: Table, experiment: Experiment) -> Table:
    """Without the other features that nobody knows: the ideal adversary knows no more than the others."""
    kept = [j for j, feature in enumerate(table.features) if feature.name not in experiment.unknown]
    features = tuple(table.features[j] for j in kept)
    sensitive = tuple(feature.name for feature in features if feature.nominal)
    return replace(table, features=features, X=table.X[:, kept], sensitive=sensitive[:1])


def people_files(experiment: Experiment, table: Table, folder: Path) -> None:
    """people.csv: what every attacker knows of everybody, all but the unknown features, and the response. ideal.csv:
    the same in the columns of the ideal adversary's model.
    """
    known = [j for j, feature in enumerate(table.features) if feature.name not in experiment.unknown]
    columns = [(table.features[j], table.X[:, j]) for j in known]
    _write_csv([*columns, (table.response, table.y)], folder / "people.csv")
    if any(one.ideal for one in experiment.adversaries):
        asked = _known_alone(ideal_table(table, experiment.unknown[0]), experiment)
        _write_csv([(feature, asked.X[:, j]) for j, feature in enumerate(asked.features)], folder / "ideal.csv")


def _write_csv(columns: list[tuple[Feature, np.ndarray]], path: Path) -> None:
    """A header and a line a person; words for levels, and numbers that read back as they were."""
    words = [
        [feature.levels[int(code)] for code in values] if feature.nominal else [repr(float(v)) for v in values]
        for feature, values in columns
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([feature.name for feature, _ in columns])
    writer.writerows(zip(*words, strict=True))
    write_atomically(path, text.getvalue().encode())
