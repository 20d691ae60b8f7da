"""All splits by name, and what is done with one: load its data, number its classes, hash its rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from oracle_server.victims import patient_splits, ruled_splits
from oracle_server.victims.data import DATA
from oracle_server.victims.face_splits import FACE_SPLITS, random_split
from oracle_server.victims.images import ImageSet
from oracle_server.victims.split import Split

__all__ = [
    "DATA",
    "SPLITS",
    "SPLIT_NAMES",
    "Split",
    "class_of",
    "load",
    "random_split",
    "rows_sha256",
    "split_named",
]

SPLITS: Mapping[str, Split] = FACE_SPLITS
"""Those that need no data to be listed; ``split_named`` knows more."""

SPLIT_NAMES = (*SPLITS, "random-<seed>", *ruled_splits.NAMES, *patient_splits.NAMES)
"""Every name there is, with what may vary in angle brackets and what may be left out in square ones."""


def split_named(name: str) -> Split:
    """The split of that name: one of ``SPLITS``, ``random-<seed>``, or one that is made by rule from its data set.

    Raises:
        ValueError: no such split.
        ImagesUnavailableError: its rows depend on a data set that is not there.
    """
    if name in SPLITS:
        return SPLITS[name]
    kind, _, seed = name.partition("-")
    if kind == "random" and seed.isdecimal():
        return random_split(int(seed))
    split = ruled_splits.ruled_split(name) or patient_splits.patient_split(name)
    if split is None:
        raise ValueError(f"unknown split {name!r}: choose one of {', '.join(SPLIT_NAMES)}")
    return split


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
