"""Splits keep to their table: who is private, which photo serves what, and nothing seen where it must be unseen."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from oracle_server.victims import cifar
from oracle_server.victims.data import DATA, DATA_ROOT_VARIABLE
from oracle_server.victims.images import ImageSet
from oracle_server.victims.splits import SPLITS, Split, class_of, load, random_split, rows_sha256, split_named

# name, private people, public people, photos of the target, of the test, of each evaluation network
TABLE = [
    ("att40", range(40), range(0), range(1, 8), range(8, 11), [range(1, 8)]),
    ("att30", range(30), range(30, 40), range(1, 8), range(8, 11), [range(1, 8)]),
]

# the same, and the published photos
SMALL = [
    ("att20", range(20), range(20, 40), range(1, 6), range(1, 11)),
    ("att20-k10", range(10), range(20, 40), range(1, 6), range(1, 11)),
    ("att20-k5", range(5), range(20, 40), range(1, 6), range(1, 11)),
    ("att20-same", range(20), range(20), range(1, 5), range(5, 9)),
]

HASHES = {
    "att40": "92db6e7543648e2ba9cf33ada6b28a45ca57a0e21d6ce81191becc066250de95",
    "att30": "595572d4e137d9011668b97d966964aeadd5c7ecc4a9c2326c2d15c27c5f3c2e",
    "random-0": "f8753ca3a24ffd003adb471523a8f4753ef2cfed8f30ecb62d6311ae81885669",
    "random-3": "7e0635bc382e15d97988611eb911c2349677cf0ba00a519cf38abc55bd16f445",
}

RULED = ["digits-same", "digits-same-k3", "digits-five", "digits-generic", "digits-distinct"]


def counts(split: Split, rows: tuple[int, ...]) -> list[int]:
    """Rows of each digit."""
    return np.bincount(load(split).labels[list(rows)], minlength=10).tolist()


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
        ({"published_data": "att", "public": ()}, "published_data must be another known data set, not 'att'"),
        ({"published_data": "lfw", "public": ()}, "published_data must be another known data set, not 'lfw'"),
        ({"published_data": "digits"}, "comes from digits: name no public"),
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
    with pytest.raises(
        ValueError, match=r"unknown split 'att41': choose one of att40, att30, att20,.* random-<seed>, digits-same"
    ):
        split_named("att41")
    with pytest.raises(ValueError, match=r"train must be in 1\.\.9, not 10"):
        random_split(0, train=10)
    with pytest.raises(ValueError, match=r"not among the classes: \[1\]"):
        class_of(faces, [0, 10], people=[0])


def test_classes_follow_the_list_of_people(faces: ImageSet) -> None:
    assert class_of(faces, [0, 10, 11, 399], people=[39, 1, 0]).tolist() == [2, 1, 1, 0]


@pytest.mark.parametrize("name", HASHES)
def test_splits_that_figures_stand_on_never_change(name: str) -> None:
    assert split_named(name).sha256() == HASHES[name]


@pytest.mark.parametrize(("name", "private", "public", "target", "published"), SMALL)
def test_splits_of_small_faces(name: str, private: range, public: range, target: range, published: range) -> None:
    split = split_named(name)
    faces = load(split)
    known = tuple(sorted({*private, *public}))
    assert faces.images.shape == (400, 1, 64, 64)
    assert (split.private, split.public, split.known) == (tuple(private), tuple(public), known)
    assert shown(faces, split.target) == every(private, target)
    assert shown(faces, split.test) == every(private, range(9, 11))
    assert shown(faces, split.published) == every(public, published)
    for rows, photos in zip(split.evaluations, (range(6, 9), range(1, 6)), strict=True):
        assert shown(faces, rows) == {(person, photo) for person in known for photo in photos}
    assert shown(faces, split.evaluation_test) == {(person, photo) for person in known for photo in (9, 10)}


def test_no_faces_are_public_but_digits() -> None:
    split = split_named("att20-distinct")
    assert (split.private, split.public, split.published_data) == (tuple(range(20)), (), "digits")
    assert split.target == split_named("att20").target
    assert len(set(split.published)) == 2000
    assert {*DATA["digits"]().labels[list(split.published)].tolist()} == set(range(10))


def test_a_hash_tells_where_published_rows_point() -> None:
    split = split_named("att20-distinct")
    assert split.sha256() != dataclasses.replace(split, published_data="mnist").sha256()
    inside = dataclasses.replace(split, published=(399,), published_data="")
    assert inside.sha256() != dataclasses.replace(split, published=(399,)).sha256()


# rows of each digit: target, test, published, each evaluation network, evaluation test
ROWS = {
    "digits-same": ([250] * 10, [25] * 10, [225] * 10, [[250] * 10], [25] * 10),
    "digits-five": (
        [400 if digit in (0, 1, 2, 3, 8) else 0 for digit in range(10)],
        [100 if digit in (0, 1, 2, 3, 8) else 0 for digit in range(10)],
        [0 if digit in (0, 1, 2, 3, 8) else 400 for digit in range(10)],
        [[400] * 10],
        [100] * 10,
    ),
    "digits-generic": (
        [250] * 5 + [0] * 5,
        [50] * 5 + [0] * 5,
        [0] * 5 + [450] * 5,
        [[100] * 10, [100] * 10],
        [50] * 10,
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_each_digit(name: str) -> None:
    split = split_named(name)
    target, test, published, evaluations, evaluation_test = ROWS[name]
    assert counts(split, split.target) == target
    assert counts(split, split.test) == test
    assert counts(split, split.published) == published
    assert [counts(split, rows) for rows in split.evaluations] == evaluations
    assert counts(split, split.evaluation_test) == evaluation_test


@pytest.mark.parametrize("name", RULED)
def test_what_must_be_unseen_is_unseen(name: str) -> None:
    split = split_named(name)
    labels = load(split).labels
    assert set(split.test).isdisjoint(split.target)
    assert set(split.test) <= set(split.evaluation_test)
    for rows in split.evaluations:
        assert set(rows).isdisjoint(split.evaluation_test)
        assert {*labels[list(rows)].tolist()} == set(split.known)
    if not split.published_data:
        assert set(split.published).isdisjoint({*split.target, *split.evaluation_test})
    assert {*labels[list(split.target)].tolist()} == set(split.private) == {*labels[list(split.test)].tolist()}


def test_the_two_evaluation_networks_of_generic_share_nothing_with_the_target_or_each_other() -> None:
    split = split_named("digits-generic")
    for left, right in itertools.combinations((split.target, *split.evaluations), 2):
        assert set(left).isdisjoint(right)


@pytest.mark.parametrize("seed", [0, 1])
def test_fewer_private_digits_are_among_more_and_all_else_is_the_same(seed: int) -> None:
    three, five, ten = (split_named(f"digits-same-k{count}-s{seed}") for count in (3, 5, 10))
    assert three.private == five.private[:3] == ten.private[:3]
    assert five.private == ten.private[:5]
    assert set(three.target) < set(five.target) < set(ten.target)
    assert set(three.test) < set(five.test) < set(ten.test)
    assert three.published == five.published == ten.published
    assert three.evaluations == five.evaluations == ten.evaluations
    assert three.known == five.known == ten.known
    plain = split_named(f"digits-same-s{seed}")
    assert plain.private == tuple(range(10))
    assert (sorted(plain.target), plain.published) == (sorted(ten.target), ten.published)


@pytest.mark.parametrize("name", RULED)
def test_rows_follow_the_seed(name: str) -> None:
    split = split_named(name)
    again = split_named(f"{name}-s0")
    assert split.sha256() == again.sha256()
    other = split_named(f"{name}-s1")
    assert set(other.target) != set(split.target)
    assert len(other.published) == len(split.published)


def test_distinct_publishes_cifar10_where_it_is_and_faces_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(DATA_ROOT_VARIABLE, raising=False)
    split = split_named("digits-distinct")
    assert (split.published_data, len(split.published), split.public) == ("att64", 400, ())
    assert counts(split, split.target) == [400] * 10
    (tmp_path / cifar.FOLDER).mkdir()
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(tmp_path))
    other = split_named("digits-distinct")
    assert (other.published_data, len(other.published)) == ("cifar10", 60_000)
    assert other.target == split.target


@pytest.mark.parametrize(
    "name",
    ["digits", "digits-celeba", "digits-same-k0", "digits-five-k3", "digits-same-s", "digits-same-s1-k3", "att-same"],
)
def test_names_outside_the_grammar_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"unknown split '{name}': choose one of"):
        split_named(name)


def test_no_more_classes_can_be_private_than_there_are() -> None:
    with pytest.raises(ValueError, match="digits has 10 classes: make at most 10 private"):
        split_named("digits-same-k11")
