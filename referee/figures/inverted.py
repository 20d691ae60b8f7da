"""Finished cells that inverted somebody else's answers, with what only the referee knows of those answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit  # type: ignore[import-untyped]

from referee.cell import Cell
from referee.given import GivenAnswers
from referee.metrics.intervals import Interval

if TYPE_CHECKING:
    from referee.judge import Judge
    from referee.results import Results

__all__ = ["Inverted", "inverted", "label_of", "mean_interval", "places_of", "ratio_interval", "set_of"]

_SETS = {"digits": "digits", "mnist": "mnist", "att64": "faces"}  # by data set, how figures call it


@dataclass(frozen=True, eq=False)
class Inverted:
    """A cell on answers (N, K) that were given.

    label  its name without victim and contract
    data   digits, mnist or faces
    """

    label: str
    data: str
    cell: Cell
    given: GivenAnswers
    judge: Judge

    def where(self, kind: str, contract: str | None = None) -> np.ndarray:
        """Which of the N are of photos of that kind ("unseen", ...), asked under that contract: (N,) bool. Without a
        contract those asked under the first one.
        """
        asked = contract or str(self.given.contracts[0])
        return np.asarray((self.given.kinds == kind) & (self.given.contracts == asked))

    def mse(self, kind: str = "unseen", contract: str | None = None) -> np.ndarray:
        """Mean squared error of each."""
        return np.asarray(self.cell.mse[-1][self.where(kind, contract)])

    def floor(self, name: str, kind: str = "unseen") -> np.ndarray:
        """What the same image for every photo, or for every photo of a class, would reach."""
        chosen = self.where(kind)
        return self.judge.floor_mse(self.given.photos[chosen], self.given.people[chosen])[name]

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.cell.seconds

    @property
    def rows(self) -> int:
        """That the server counted for the attacker's key."""
        return self.cell.rows_ledger


def inverted(results: Results, cells: Sequence[Cell]) -> list[Inverted]:
    """Those of the cells that are finished runs on given answers."""
    found = []
    for cell in cells:
        planned = results.planned(cell)
        if cell.status == "done" and planned.asked:
            given, judge = results.given(planned), results.judge(cell.split)
            assert isinstance(given, GivenAnswers)
            found.append(Inverted(label_of(cell), set_of(judge), cell, given, judge))
    return found


def label_of(cell: Cell) -> str:
    """A cell's name without the contract and, where it is one of several, the victim."""
    return cell.name.rpartition("/")[0].partition("@")[0]


def set_of(judge: Judge) -> str:
    """How figures call the data set of a split."""
    return _SETS.get(judge.split.data, judge.split.data)


def places_of(cells: Sequence[Inverted], kind: str) -> np.ndarray:
    """Numbers of the photos, all runs one after the other: a photo has the same number in every run of a split."""
    splits = list(dict.fromkeys(one.cell.split for one in cells))
    return np.concatenate([splits.index(one.cell.split) * 10**6 + np.arange(one.where(kind).sum()) for one in cells])


def mean_interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> Interval:
    """Mean of a few independent values and Student's interval; of a single one there is none: low = high."""
    values = np.asarray(values, dtype=np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, mean, mean)
    half = float(stdtrit(len(values) - 1, (1 + level) / 2) * values.std(ddof=1) / np.sqrt(len(values)))
    return Interval(mean, mean - half, mean + half)


def ratio_interval(above: Sequence[float] | np.ndarray, below: Sequence[float] | np.ndarray) -> Interval:
    """Geometric mean of ratios of pairs, with Student's interval of their logarithms."""
    logs = mean_interval(np.log(np.asarray(above, dtype=np.float64)) - np.log(np.asarray(below, dtype=np.float64)))
    return Interval(*(float(np.exp(value)) for value in (logs.value, logs.low, logs.high)))
