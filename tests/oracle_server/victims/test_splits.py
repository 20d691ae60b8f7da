"""Splits keep to their table: who is private, which photo serves what, and nothing seen where it must be unseen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from oracle_server.victims.images import ImageSet
from oracle_server.victims.splits import SPLITS, Split, class_of, load, random_split, rows_sha256, split_named

# name, private people, public people, photos of the target, of the test, of each evaluation network
TABLE = [
    ("att40", range(40), range(0), range(1, 8), range(8, 11), [range(1, 8)]),
    ("att30", range(30), range(30, 40), range(1, 8), range(8, 11), [range(1, 8)]),
]


def shown(faces: ImageSet, rows: tuple[int, ...]) -> set[tuple[int, int]]:
    index = np.array(rows, dtype=np.int64)
    return set(zip(faces.labels[index].tolist(), (index % 10 + 1).tolist(), strict=True))


def every(people: range, photos: range) -> set[tuple[int, int]]:
    return {(person, photo) for person in people for photo in photos}


@pytest.mark.parametrize(("name", "private", "public", "target", "test", "evaluations"), TABLE)
def test_splits_keep_to_the_table(
    faces: ImageSet, name: str, private: range, public: range, target: range, test: range, evaluations: list[range]
) -> None:
    split = SPLITS[name]
    assert (split.private, split.public) == (tuple(private), tuple(public))
    assert shown(faces, split.target) == every(private, target)
    assert shown(faces, split.test) == every(private, test)
    assert shown(faces, split.evaluation_test) == every(range(40), test)
    assert [shown(faces, rows) for rows in split.evaluations] == [every(range(40), rows) for rows in evaluations]
    assert shown(faces, split.published) == every(public, range(1, 11))
    assert split.known == tuple(range(40))
    assert load(split).sha256() == faces.sha256()


@pytest.mark.parametrize("seed", range(10))
def test_random_splits_take_seven_of_each_person(faces: ImageSet, seed: int) -> None:
    split = random_split(seed)
    assert np.bincount(faces.labels[list(split.target)]).tolist() == [7] * 40
    assert np.bincount(faces.labels[list(split.test)]).tolist() == [3] * 40
    assert sorted(split.target + split.test) == list(range(400))
    assert split == random_split(seed) == split_named(f"random-{seed}")
    assert split.sha256() != random_split(seed + 1).sha256()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"test": SPLITS["att30"].target[:1]}, "target and test share a row"),
        ({"published": SPLITS["att30"].target[:1]}, "target and published share a row"),
        ({"published": SPLITS["att30"].test[-1:]}, "test and published share a row"),
        ({"evaluations": (SPLITS["att30"].test,)}, "evaluations and test share a row"),
        ({"evaluation_test": SPLITS["att30"].target[:1]}, "evaluations and evaluation_test share a row"),
        ({"target": (1, 1)}, "target names a row twice"),
        ({"test": ()}, "test has no rows"),
        ({"data": "faces"}, "unknown data set 'faces'; known: att"),
    ],
)
def test_a_split_that_mixes_seen_and_unseen_is_refused(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(SPLITS["att30"], **change)


def test_the_hash_is_of_rows_not_of_the_name() -> None:
    split: Split = SPLITS["att40"]
    assert split.sha256() == dataclasses.replace(split, name="other").sha256()
    assert split.sha256() != dataclasses.replace(split, target=split.target[1:]).sha256()
    assert rows_sha256(split.target) != rows_sha256(split.target[::-1])


def test_unknown_names_and_strangers_are_refused(faces: ImageSet) -> None:
    with pytest.raises(ValueError, match=r"unknown split 'att41': choose one of att40, att30, random-<seed>"):
        split_named("att41")
    with pytest.raises(ValueError, match=r"train must be in 1\.\.9, not 10"):
        random_split(0, train=10)
    with pytest.raises(ValueError, match=r"not among the classes: \[1\]"):
        class_of(faces, [0, 10], people=[0])


def test_classes_follow_the_list_of_people(faces: ImageSet) -> None:
    assert class_of(faces, [0, 10, 11, 399], people=[39, 1, 0]).tolist() == [2, 1, 1, 0]
