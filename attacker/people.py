"""What is known about the people whose attributes are to be inferred, handed over as a CSV file, and every way to
complete it.

The file has a header with the names of the schema and one line for each person. Words stand for the levels of nominal
features, numbers for numeric ones; the column of the response may be there too. Columns of unknown features are not.
"""

from __future__ import annotations

import csv
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from protos.schema import Feature

if TYPE_CHECKING:
    from attacker.oracle import Oracle

__all__ = ["MOST_COMBINATIONS", "Candidates", "People", "count_people", "read_known", "read_people"]

MOST_COMBINATIONS = 4096  # of values of the unknown features: each is a row a person


@dataclass(frozen=True, eq=False)
class People:
    """T people: rows (T, d) float32, NaN where unknown; response (T,) float64, a class or a number, NaN when not given;
    `unknown` are the positions of the features that nobody knows.
    """

    features: tuple[Feature, ...]
    rows: np.ndarray
    response: np.ndarray
    unknown: tuple[int, ...]

    def at(self, targets: np.ndarray) -> People:
        """The people at these positions alone."""
        return People(self.features, self.rows[targets], self.response[targets], self.unknown)


class Candidates:
    """All K combinations of values of the unknown features: codes (K, u), and the product of their priors (K,)."""

    def __init__(self, people: People) -> None:
        self._people = people
        unknown = [people.features[j] for j in people.unknown]
        self.codes = np.array(list(itertools.product(*(range(len(f.levels)) for f in unknown))), dtype=np.float32)
        priors = [np.array(f.prior)[self.codes[:, u].astype(int)] for u, f in enumerate(unknown)]
        self.prior = np.prod(priors, axis=0)

    def rows(self) -> np.ndarray:
        """Each person completed in every way, (T * K, d) float32, person by person."""
        people = self._people
        rows = np.repeat(people.rows, len(self.codes), axis=0)
        rows[:, people.unknown] = np.tile(self.codes, (len(people.rows), 1))
        return rows

    def decide(self, weight: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The most likely completion from the weight of each candidate (T, K), which need not sum to one.

        Each unknown feature is decided on its own, summed over the others. Returns the rows (T, d), and for each of
        them `posterior_<name>` (T, L). Where no candidate has any weight, the prior decides.
        """
        people = self._people
        total = weight.sum(axis=1, keepdims=True)
        posterior = np.where(total > 0, weight / np.where(total > 0, total, 1), self.prior / self.prior.sum())
        rows, shares = people.rows.copy(), {}
        for u, j in enumerate(people.unknown):
            level = np.eye(len(people.features[j].levels))[self.codes[:, u].astype(int)]  # (K, L)
            share = posterior @ level
            rows[:, j] = share.argmax(axis=1)
            shares[f"posterior_{people.features[j].name}"] = share
        return rows, shares


def count_people(path: Path | None) -> int:
    """How many people a file describes."""
    return len(_lines(path)) - 1


def read_people(path: Path | None, unknown: str, oracle: Oracle, *, needs_response: bool) -> People:
    """Read a file for an oracle's schema; `unknown` names features, with commas between them.

    Raises `ValueError` with one sentence: no file, an unknown name, a column that is missing or not in the schema, a
    value that is no level or out of range, an unknown feature that is numeric, more combinations than can be tried.
    """
    features = tuple(oracle.features)
    names = [feature.name for feature in features]
    hidden = [name.strip() for name in unknown.split(",") if name.strip()]
    if not hidden:
        raise ValueError(f"no feature is to be inferred: name some of {', '.join(names)} with --set unknown=NAME,NAME")
    for name in hidden:
        if name not in names:
            raise ValueError(f"unknown={unknown}: the model has no feature {name!r}; there is {', '.join(names)}")
        if not features[names.index(name)].nominal:
            raise ValueError(f"the feature {name!r} is numeric: only nominal features can be inferred, give its values")
    combinations = math.prod(len(features[names.index(name)].levels) for name in hidden)
    if combinations > MOST_COMBINATIONS:
        raise ValueError(
            f"the unknown features have {combinations:,} combinations of levels, each a query for every person, and at"
            f" most {MOST_COMBINATIONS:,} are tried: give some of {', '.join(hidden)}"
        )
    return _read(path, oracle, hidden, needs_response)


def read_known(path: Path | None, oracle: Oracle) -> People:
    """Read a file that gives every feature of an oracle's schema; `ValueError` as for `read_people`."""
    return _read(path, oracle, [], needs_response=False)


def _read(path: Path | None, oracle: Oracle, hidden: list[str], needs_response: bool) -> People:
    features = tuple(oracle.features)
    names = [feature.name for feature in features]
    header, *lines = _lines(path)
    answer = oracle.response.name if oracle.response is not None else ""
    if strange := [name for name in header if name not in (*names, answer)]:
        raise ValueError(f"{path}: the column {strange[0]!r} is not in the model's schema; leave it out")
    if given := [name for name in hidden if name in header]:
        raise ValueError(f"{path} has a column {given[0]!r}, which is to be inferred: leave it out of the file")
    wanted = [name for name in names if name not in hidden] + ([answer] if needs_response else [])
    if missing := [name for name in wanted if name not in header]:
        raise ValueError(f"{path}: the column {missing[0]!r} is missing: give it, or name it with --set unknown=")
    columns = dict(zip(header, zip(*lines, strict=True), strict=True)) if lines else {}
    rows = np.full((len(lines), len(features)), np.nan, dtype=np.float32)
    for j, feature in enumerate(features):
        if feature.name in columns:
            rows[:, j] = _codes(columns[feature.name], feature, path)
    response = np.full(len(lines), np.nan)
    if oracle.response is not None and answer in columns:
        response = _codes(columns[answer], oracle.response, path, bounded=False)
    return People(features, rows, response, tuple(names.index(name) for name in hidden))


def _lines(path: Path | None) -> list[list[str]]:
    if path is None:
        raise ValueError("nothing is known about anybody: hand over a CSV file of people with --given")
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            lines = [line for line in csv.reader(file) if line]
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}: name a CSV file of people with --given") from None
    if len(lines) < 2:
        raise ValueError(f"{path} describes nobody: write a header and a line for each person")
    if len(set(lines[0])) < len(lines[0]):
        raise ValueError(f"{path}: two columns have the same name: leave one of them out")
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(lines[0]):
            raise ValueError(f"{path}, line {number}: {len(line)} values for {len(lines[0])} columns")
    return lines


def _codes(words: tuple[str, ...], feature: Feature, path: Path | None, *, bounded: bool = True) -> np.ndarray:
    """Values of one column as float64: the codes of levels, or numbers in the feature's range."""
    if feature.nominal:
        code = {level: float(place) for place, level in enumerate(feature.levels)}
        if bad := next((word for word in words if word not in code), None):
            known = ", ".join(feature.levels[:20])
            raise ValueError(f"{path}, column {feature.name!r}: {bad!r} is none of its levels: {known}")
        return np.array([code[word] for word in words])
    try:
        numbers = np.array(words, dtype=np.float64)
    except ValueError:
        raise ValueError(f"{path}, column {feature.name!r}: not every value is a number") from None
    outside = ~np.isfinite(numbers) | (bounded & ((numbers < feature.low) | (numbers > feature.high)))
    if outside.any():
        raise ValueError(
            f"{path}, column {feature.name!r}: {numbers[outside][0]:g} lies outside [{feature.low:g}, {feature.high:g}]"
        )
    return numbers
