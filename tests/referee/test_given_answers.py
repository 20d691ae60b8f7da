"""Photos that a benign user asks about: which they are, and how the answers are laid out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from attacker.released import write_answers
from oracle_server.victims.splits import class_of, load, split_named
from referee.given import check_given, given_answers, rows_asked

SPLIT = split_named("att30")
FACES = load(SPLIT)


def test_training_photos_and_unseen_ones_fixed_by_the_split():
    rows = rows_asked(SPLIT, FACES, "classifier", 20)
    assert list(rows) == ["training", "unseen"]
    assert set(rows["training"]) <= set(SPLIT.target)
    assert set(rows["unseen"]) <= set(SPLIT.test)
    assert [len(set(part)) for part in rows.values()] == [20, 20]
    fewer = rows_asked(SPLIT, FACES, "classifier", 5)
    assert fewer == {kind: part[:5] for kind, part in rows.items()}
    assert rows["training"] != sorted(rows["training"])  # drawn, not the first people
    everything = rows_asked(SPLIT, FACES, "classifier", 10_000)
    assert [len(part) for part in everything.values()] == [len(SPLIT.target), len(SPLIT.test)]


def test_of_a_feature_model_known_photos_are_public_unpublished_ones():
    published = tuple(row for row in SPLIT.published if row % 10 < 7)
    rows = rows_asked(replace(SPLIT, published=published), FACES, "features", 1000)
    assert set(rows["unknown"]) == set(SPLIT.test)
    assert {int(FACES.labels[row]) for row in rows["known"]} == set(range(30, 40))
    assert not set(rows["known"]) & {*published, *SPLIT.target, *SPLIT.test}
    assert "known" not in rows_asked(SPLIT, FACES, "features", 1000)  # all of their photos are published


def test_entries_are_contract_by_contract_kind_by_kind():
    rows = {"training": [0, 11], "unseen": [7]}
    one, two = np.zeros((3, 30)), np.full((3, 30), np.nan)
    given = given_answers(SPLIT, FACES, rows, {"full": one, "m3": two})
    assert given.contracts.tolist() == ["full"] * 3 + ["m3"] * 3
    assert given.kinds.tolist() == ["training", "training", "unseen"] * 2
    assert given.people.tolist() == class_of(FACES, [0, 11, 7], SPLIT.known).tolist() * 2
    np.testing.assert_array_equal(given.photos, FACES.images[[0, 11, 7, 0, 11, 7]])
    np.testing.assert_array_equal(given.answers, np.concatenate([one, two]))
    assert given.images is None
    with pytest.raises(ValueError, match="full 30, m3 29"):
        given_answers(SPLIT, FACES, rows, {"full": one, "m3": two[:, 1:]})


def test_written_as_the_attacker_reads_them(tmp_path):
    answers = np.array([[0.25, np.nan], [np.nan, 1.0]])
    with np.load(write_answers(answers, tmp_path / "a" / "answers.npz")) as file:
        assert file.files == ["answers"]
        np.testing.assert_array_equal(file["answers"], answers)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"answers": ["full"]}, "photos = None must be"),
        ({"photos": 0, "answers": ["full"]}, "above 0"),
        ({"photos": True, "answers": ["full"]}, "above 0"),
        ({"photos": 3, "answers": "full"}, "must be a list"),
        ({"photos": 3, "answers": []}, "must be a list"),
        ({"photos": 3, "answers": ["full", "full"]}, "different names"),
        ({"photos": 3, "answers": ["m3"]}, "no contract 'm3'; there is full, label"),
        ({"photos": 3, "answers": ["full"], "sigma": 1}, "no field 'sigma'"),
    ],
)
def test_a_table_that_asks_for_no_answers(values, sentence):
    good = {"photos": 3, "answers": ["full", "label"]}
    assert check_given(good, SPLIT, ["full", "label"]) == good
    with pytest.raises(ValueError, match=sentence):
        check_given(values, SPLIT, ["full", "label"])
