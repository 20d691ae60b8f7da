"""Who is private, who is public, and which photo serves what.

A split is nothing but rows of a data set. The rows are listed, hashed and written next to each model, so that anybody
can say what a model has seen.

    rows            seen by                    used for
    target          the target                 what an attack is after
    test            nobody but the referee     the target's test error; the ceiling of every table
    evaluations     the evaluation networks    one list of rows for each network, which know every person
    evaluation_test nobody                     the evaluation networks' test accuracy
    published       everybody                  all that an attacker gets
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from oracle_server.victims.data import DATA

__all__ = ["HANDED_OVER", "Rows", "Split"]

Rows = tuple[int, ...]

HANDED_OVER = "handed over"
"""The data of a split whose images nobody finds by name: whoever made the split has them."""


@dataclass(frozen=True)
class Split:
    """Rows of a data set by what they serve.

    Attributes:
        name: as in the table of splits.
        data: the data set, a key of ``DATA``, or ``HANDED_OVER``.
        private: people whose photos the target trains on; a person's class is the place in this list.
        public: people whose photos are published.
        target, test, evaluations, evaluation_test, published: rows, see the table on top of this module.
        published_data: the data set that the published rows point into, when it is another one; empty when it is the
            same. There are no public people then: its labels mean something else.

    Raises:
        ValueError: a list is empty or repeats a row, or what was learned or published meets what must be unseen.
    """

    name: str
    data: str
    private: tuple[int, ...]
    public: tuple[int, ...]
    target: Rows
    test: Rows
    evaluations: tuple[Rows, ...]
    evaluation_test: Rows
    published: Rows
    published_data: str = ""

    def __post_init__(self) -> None:
        if self.data not in (*DATA, HANDED_OVER):
            raise ValueError(f"split {self.name}: unknown data set {self.data!r}; known: {', '.join(DATA)}")
        if self.published_data and (self.published_data not in DATA or self.published_data == self.data):
            raise ValueError(
                f"split {self.name}: published_data must be another known data set, not {self.published_data!r}"
            )
        if self.published_data and self.public:
            raise ValueError(f"split {self.name}: what is published comes from {self.published_data}: name no public")
        for name, rows in self._lists():
            if len(set(rows)) != len(rows):
                raise ValueError(f"split {self.name}: {name} names a row twice")
            if not rows and name != "published":
                raise ValueError(f"split {self.name}: {name} has no rows")
        apart = [("target", self.target, "test", self.test)]
        if not self.published_data:  # rows of another data set are other images, whatever their numbers
            apart += [("target", self.target, "published", self.published)]
            apart += [("test", self.test, "published", self.published)]
        for rows in self.evaluations:
            apart += [("evaluations", rows, "test", self.test)]
            apart += [("evaluations", rows, "evaluation_test", self.evaluation_test)]
        for left, rows, right, others in apart:
            if not set(rows).isdisjoint(others):
                raise ValueError(f"split {self.name}: {left} and {right} share a row")

    @property
    def known(self) -> tuple[int, ...]:
        """The people whom an evaluation network tells apart: the private ones first, so classes agree with the
        target's.
        """
        return self.private + tuple(person for person in self.public if person not in self.private)

    def index_lists(self) -> dict[str, list[int] | list[list[int]]]:
        """All rows, as written next to each model."""
        return {
            "target": list(self.target),
            "test": list(self.test),
            "evaluations": [list(rows) for rows in self.evaluations],
            "evaluation_test": list(self.evaluation_test),
            "published": list(self.published),
        }

    def sha256(self) -> str:
        """Hash of the data sets' names, the people and all rows, but not of the split's own name."""
        content = {"data": self.data, "private": self.private, "public": self.public, **self.index_lists()}
        if self.published_data:
            content["published_data"] = self.published_data
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _lists(self) -> Iterable[tuple[str, Rows]]:
        yield from (("target", self.target), ("test", self.test))
        yield from (("evaluations", rows) for rows in self.evaluations)
        yield from (("evaluation_test", self.evaluation_test), ("published", self.published))
