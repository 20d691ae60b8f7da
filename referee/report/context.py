"""What a report says beside the cells: whose faces, which floors and ceilings, which command, which figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from referee.report.sections import Section
from referee.report.summary import Figure

__all__ = ["Campaign", "Reference", "SplitView"]


@dataclass(frozen=True, eq=False)
class SplitView:
    """One split, as it is shown: `people` (T,) int are the targets' classes, `photos` (T, k, C, H, W) in [0, 1].

    `classes` is the number of people that the evaluation model tells apart: chance is one in `classes`.
    `evaluation` says in a sentence which model recognises, and on which photos it was trained; `noun` is what the
    classes are called.
    """

    name: str
    description: str
    credit: str
    evaluation: str
    classes: int
    people: np.ndarray
    photos: np.ndarray
    noun: str = "people"

    def __post_init__(self) -> None:
        if self.photos.ndim != 5 or self.photos.shape[:1] != self.people.shape or not self.photos.shape[1]:
            raise ValueError(
                f"split {self.name}: photos {self.photos.shape} must be (T, k, C, H, W) with k >= 1 for "
                f"people {self.people.shape}"
            )

    def photo(self, person: int) -> np.ndarray | None:
        """The first real photo (C, H, W) of a person, or None where the split has none."""
        where = np.flatnonzero(self.people == person)
        return None if not len(where) else np.asarray(self.photos[where[0], 0])


@dataclass(frozen=True, eq=False)
class Reference:
    """A floor (an image made without any query) or a ceiling (held-out real photos), measured like a cell.

    All arrays are (N,): one entry for each image, with its target; a target may have several images.
    """

    name: str
    kind: Literal["floor", "ceiling"]
    split: str
    targets: np.ndarray
    top1: np.ndarray
    top5: np.ndarray
    own: np.ndarray
    others: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True, eq=False)
class Campaign:
    """All that a report needs beside its cells. Nothing here is computed: the same values give the same page."""

    title: str
    created: str
    command: str
    splits: Sequence[SplitView]
    references: Sequence[Reference] = ()
    figures: Sequence[Figure] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    first: Sequence[Section] = ()  # shown before the cells, as they are
    sections: Sequence[Section] = ()  # shown after the cells, as they are
    said: Mapping[str, str] = field(default_factory=dict)  # sentences by name, for the summary
    credits: Sequence[str] = ()  # of data that no split names
    # Methods that are floors themselves: they ask the oracle, but know nothing of the target.
    floor_methods: frozenset[str] = frozenset({"random_draws"})
    # Names of cells that stand in `sections` alone, not in the table of their split.
    apart: frozenset[str] = frozenset()
    # By name and seed of a cell, its task, defence, strength and attack in a matrix.
    matrix: Mapping[tuple[str, int], Mapping[str, str]] = field(default_factory=dict)

    def split(self, name: str) -> SplitView:
        """The split of that name. Raises `KeyError` with the names that there are."""
        for split in self.splits:
            if split.name == name:
                return split
        raise KeyError(f"the report knows no split {name!r}, only {[split.name for split in self.splits]}")
