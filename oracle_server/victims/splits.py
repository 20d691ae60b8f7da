"""Who is private, who is public, and which photo serves what: one table entry per split.

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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from oracle_server.victims import att
from oracle_server.victims.images import ImageSet

__all__ = ["DATA", "SPLITS", "Split", "class_of", "load", "random_split", "rows_sha256", "split_named"]

Rows = tuple[int, ...]

DATA: Mapping[str, Callable[[], ImageSet]] = MappingProxyType({"att": att.faces})


@dataclass(frozen=True)
class Split:
    """Rows of a data set by what they serve.

    Attributes:
        name: as in the table of splits.
        data: the data set, a key of ``DATA``.
        private: people whose photos the target trains on; a person's class is the place in this list.
        public: people whose photos are published.
        target, test, evaluations, evaluation_test, published: rows, see the table on top of this module.

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

    def __post_init__(self) -> None:
        if self.data not in DATA:
            raise ValueError(f"split {self.name}: unknown data set {self.data!r}; known: {', '.join(DATA)}")
        for name, rows in self._lists():
            if len(set(rows)) != len(rows):
                raise ValueError(f"split {self.name}: {name} names a row twice")
            if not rows and name != "published":
                raise ValueError(f"split {self.name}: {name} has no rows")
        apart = [("target", self.target, "test", self.test)]
        apart += [
            (name, rows, "published", self.published) for name, rows in (("target", self.target), ("test", self.test))
        ]
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
        """Hash of the data set's name, the people and all rows, but not of the split's own name."""
        content = {"data": self.data, "private": self.private, "public": self.public, **self.index_lists()}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _lists(self) -> Iterable[tuple[str, Rows]]:
        yield from (("target", self.target), ("test", self.test))
        yield from (("evaluations", rows) for rows in self.evaluations)
        yield from (("evaluation_test", self.evaluation_test), ("published", self.published))


def _by_photo(
    name: str,
    *,
    private: Iterable[int],
    public: Iterable[int] = (),
    target: Sequence[int],
    test: Sequence[int],
    evaluations: Sequence[Sequence[int]],
    published: Sequence[int],
    data: str = "att",
    photos: int = att.PHOTOS,
) -> Split:
    """A split in which the same photo numbers (from 1) serve the same purpose for everybody."""
    private, public = tuple(private), tuple(public)
    known = private + tuple(person for person in public if person not in private)

    def rows(people: Sequence[int], numbers: Sequence[int]) -> Rows:
        return tuple(photos * person + number - 1 for person, number in product(people, numbers))

    return Split(
        name=name,
        data=data,
        private=private,
        public=public,
        target=rows(private, target),
        test=rows(private, test),
        evaluations=tuple(rows(known, numbers) for numbers in evaluations),
        evaluation_test=rows(known, test),
        published=rows(public, published),
    )


_SEVEN, _THREE, _ALL = range(1, 8), range(8, 11), range(1, 11)

SPLITS: Mapping[str, Split] = MappingProxyType(
    {
        split.name: split
        for split in (
            _by_photo("att40", private=range(40), target=_SEVEN, test=_THREE, evaluations=[_SEVEN], published=()),
            _by_photo(
                "att30",
                private=range(30),
                public=range(30, 40),
                target=_SEVEN,
                test=_THREE,
                evaluations=[_SEVEN],
                published=_ALL,
            ),
        )
    }
)


def split_named(name: str) -> Split:
    """The split of that name; ``random-<seed>`` gives a random one.

    Raises:
        ValueError: no such split.
    """
    kind, _, seed = name.partition("-")
    if kind == "random" and seed.isdecimal():
        return random_split(int(seed))
    if name not in SPLITS:
        raise ValueError(f"unknown split {name!r}: choose one of {', '.join(SPLITS)}, random-<seed>")
    return SPLITS[name]


def random_split(seed: int, train: int = 7) -> Split:
    """All 40 people are private; of each, `train` photos drawn at random train and the others test."""
    if not 0 < train < att.PHOTOS:
        raise ValueError(f"train must be in 1..{att.PHOTOS - 1}, not {train}")
    random = np.random.default_rng(seed)
    orders = [att.PHOTOS * person + random.permutation(att.PHOTOS) for person in range(att.PEOPLE)]
    learned = tuple(chain.from_iterable(sorted(order[:train].tolist()) for order in orders))
    tested = tuple(chain.from_iterable(sorted(order[train:].tolist()) for order in orders))
    return Split(
        name=f"random-{seed}",
        data="att",
        private=tuple(range(att.PEOPLE)),
        public=(),
        target=learned,
        test=tested,
        evaluations=(learned,),
        evaluation_test=tested,
        published=(),
    )


def load(split: Split) -> ImageSet:
    """The data set that the split's rows point into."""
    return DATA[split.data]()


def class_of(faces: ImageSet, rows: Sequence[int], people: Sequence[int]) -> NDArray[np.int64]:
    """Class labels (len(rows),) int64: the place in `people` of who is on each row.

    Raises:
        ValueError: a row shows somebody who is not in `people`.
    """
    place = {person: index for index, person in enumerate(people)}
    shown = faces.labels[np.asarray(rows, dtype=np.int64)].tolist()
    if strangers := sorted(set(shown) - place.keys()):
        raise ValueError(f"the rows show people who are not among the classes: {strangers}")
    return np.array([place[person] for person in shown], dtype=np.int64)


def rows_sha256(rows: Sequence[int]) -> str:
    """Hash of a list of rows, in their order."""
    return hashlib.sha256(json.dumps([int(row) for row in rows]).encode()).hexdigest()
