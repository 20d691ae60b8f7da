"""Splits of the AT&T faces: a table of those with a name, and random ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, product
from types import MappingProxyType

import numpy as np

from oracle_server.victims import att, digits
from oracle_server.victims.split import Rows, Split

__all__ = ["FACE_SPLITS", "random_split"]


def _by_photo(
    name: str,
    *,
    private: Iterable[int],
    public: Iterable[int] = (),
    target: Sequence[int],
    test: Sequence[int],
    evaluations: Sequence[Sequence[int]],
    published: Sequence[int] = (),
    data: str = "att64",
) -> Split:
    """A split of AT&T faces in which the same photo numbers (from 1) serve the same purpose for everybody."""
    private, public = tuple(private), tuple(public)
    known = private + tuple(person for person in public if person not in private)

    def rows(people: Sequence[int], numbers: Sequence[int]) -> Rows:
        return tuple(att.PHOTOS * person + number - 1 for person, number in product(people, numbers))

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
_FIRST, _LATER, _LAST = range(1, 6), range(6, 9), range(9, 11)

_FULL_SIZE = (
    _by_photo("att40", private=range(40), target=_SEVEN, test=_THREE, evaluations=[_SEVEN], data="att"),
    _by_photo(
        "att30",
        private=range(30),
        public=range(30, 40),
        target=_SEVEN,
        test=_THREE,
        evaluations=[_SEVEN],
        published=_ALL,
        data="att",
    ),
)

# "generic" in the paper's words: strangers are public. With fewer private people the public ones stay the same.
_GENERIC = tuple(
    _by_photo(
        name,
        private=range(people),
        public=range(20, 40),
        target=_FIRST,
        test=_LAST,
        evaluations=[_LATER, _FIRST],
        published=_ALL,
    )
    for name, people in (("att20", 20), ("att20-k10", 10), ("att20-k5", 5))
)

# other photos of the same people are public
_SAME = _by_photo(
    "att20-same",
    private=range(20),
    public=range(20),
    target=range(1, 5),
    test=_LAST,
    evaluations=[_LATER, _FIRST],
    published=range(5, 9),
)

# no faces at all are public, but digits
_DISTINCT = dataclasses.replace(
    _by_photo("att20-distinct", private=range(20), target=_FIRST, test=_LAST, evaluations=[_LATER, _FIRST]),
    published=tuple(np.sort(np.random.default_rng(0).permutation(digits.ROWS)[:2000]).tolist()),
    published_data="digits",
)

FACE_SPLITS: Mapping[str, Split] = MappingProxyType(
    {split.name: split for split in (*_FULL_SIZE, *_GENERIC, _SAME, _DISTINCT)}
)


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
