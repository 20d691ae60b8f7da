"""Files of people: what is read from them, and one sentence for everything that cannot be."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from attacker.people import MOST_COMBINATIONS, Candidates, count_people, read_known, read_people
from protos.schema import Feature

SCHEMA = (
    Feature("smokes", ("no", "yes"), 0, 1, (0.75, 0.25)),
    Feature("age", (), 18, 90, (0.5, 0.5), (18, 40, 90)),
    Feature("region", ("north", "south", "west"), 0, 2, (0.2, 0.3, 0.5)),
    Feature("cheated", ("no", "yes"), 0, 1, (0.8, 0.2)),
)
STEAK = Feature("steak", ("rare", "well"), 0, 1, (0.5, 0.5))
FULL = "age,region,steak,smokes\n30,south,well,yes\n18,west,rare,no\n"


def oracle(features: tuple[Feature, ...] = SCHEMA, response: Feature = STEAK) -> Any:
    return SimpleNamespace(features=features, response=response)


def written(folder: Path, text: str) -> Path:
    path = folder / "people.csv"
    path.write_text(text)
    return path


def test_words_become_codes_in_the_order_of_the_schema(tmp_path: Path) -> None:
    people = read_people(written(tmp_path, FULL), "cheated", oracle(), needs_response=True)
    np.testing.assert_array_equal(people.rows, [[1, 30, 1, np.nan], [0, 18, 2, np.nan]])
    np.testing.assert_array_equal(people.response, [1, 0])
    assert people.rows.dtype == np.float32
    assert people.unknown == (3,)
    assert count_people(tmp_path / "people.csv") == 2


def test_a_subset_keeps_its_order(tmp_path: Path) -> None:
    people = read_people(written(tmp_path, FULL), "cheated", oracle(), needs_response=True).at(np.array([1, 0]))
    np.testing.assert_array_equal(people.rows[:, 1], [18, 30])
    np.testing.assert_array_equal(people.response, [0, 1])


def test_a_response_may_be_left_out_where_it_is_not_needed(tmp_path: Path) -> None:
    path = written(tmp_path, "age,region,smokes\n30,south,yes\n")
    assert np.isnan(read_people(path, "cheated", oracle(), needs_response=False).response).all()
    with pytest.raises(ValueError, match="column 'steak' is missing"):
        read_people(path, "cheated", oracle(), needs_response=True)


def test_every_feature_known(tmp_path: Path) -> None:
    path = written(tmp_path, "cheated,age,region,smokes\nyes,30,south,yes\n")
    np.testing.assert_array_equal(read_known(path, oracle()).rows, [[1, 30, 1, 1]])
    with pytest.raises(ValueError, match="column 'cheated' is missing"):
        read_known(written(tmp_path, FULL), oracle())


@pytest.mark.parametrize(
    ("text", "unknown", "sentence"),
    [
        (FULL, "", "no feature is to be inferred: name some of smokes, age, region, cheated"),
        (FULL, "income", "the model has no feature 'income'; there is smokes, age, region, cheated"),
        (FULL, "age", "'age' is numeric: only nominal features can be inferred"),
        (FULL, "cheated,smokes", "has a column 'smokes', which is to be inferred: leave it out"),
        (FULL.replace("region", "country"), "cheated", "column 'country' is not in the model's schema"),
        (FULL.replace("south", "east"), "cheated", "'east' is none of its levels: north, south, west"),
        (FULL.replace("30", "old"), "cheated", "column 'age': not every value is a number"),
        (FULL.replace("30", "nan"), "cheated", "nan lies outside"),
        (FULL.replace("30", "17"), "cheated", "17 lies outside"),
        (FULL.replace("age,", "").replace("30,", "").replace("18,", ""), "cheated", "the column 'age' is missing"),
        (FULL.replace("well", "blue"), "cheated", "'blue' is none of its levels: rare, well"),
        ("age,region\n", "cheated", "describes nobody"),
        (FULL + "30,south\n", "cheated", "line 4: 2 values for 4 columns"),
        (FULL.replace("smokes", "age"), "cheated", "two columns have the same name"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, text: str, unknown: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        read_people(written(tmp_path, text), unknown, oracle(), needs_response=True)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--given"):
        read_people(None, "cheated", oracle(), needs_response=True)
    with pytest.raises(ValueError, match="there is no file"):
        count_people(tmp_path / "nobody.csv")


def test_too_many_combinations_are_counted_before_the_file_is_read(tmp_path: Path) -> None:
    levels = tuple(str(n) for n in range(17))
    wide = tuple(Feature(f"q{n}", levels, 0, 16, (1 / 17,) * 17) for n in range(3))
    with pytest.raises(ValueError, match=r"4,913 combinations .* at most 4,096"):
        read_people(tmp_path / "none.csv", "q0,q1,q2", oracle(wide), needs_response=False)
    assert 17**2 <= MOST_COMBINATIONS < 17**3


def test_candidates_are_every_combination_with_its_prior(tmp_path: Path) -> None:
    path = written(tmp_path, "age,smokes\n30,yes\n18,no\n")
    people = read_people(path, "region, cheated", oracle(), needs_response=False)
    candidates = Candidates(people)
    assert candidates.codes.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]]
    np.testing.assert_allclose(candidates.prior, np.outer([0.2, 0.3, 0.5], [0.8, 0.2]).ravel())
    rows = candidates.rows().reshape(2, 6, 4)
    np.testing.assert_array_equal(rows[0, :, :2], [[1, 30]] * 6)
    np.testing.assert_array_equal(rows[1, :, 2:], candidates.codes)


def test_each_feature_is_decided_with_the_others_summed_out(tmp_path: Path) -> None:
    """The best combination is (north, no), but most of the weight lies on south."""
    people = read_people(written(tmp_path, "age,smokes\n30,yes\n"), "region,cheated", oracle(), needs_response=False)
    rows, posterior = Candidates(people).decide(np.array([[0.4, 0.0, 0.3, 0.3, 0.0, 0.0]]))
    np.testing.assert_allclose(posterior["posterior_region"], [[0.4, 0.6, 0]])
    np.testing.assert_allclose(posterior["posterior_cheated"], [[0.7, 0.3]])
    assert rows.tolist() == [[1, 30, 1, 0]]


def test_without_any_weight_the_prior_decides(tmp_path: Path) -> None:
    people = read_people(written(tmp_path, "age,smokes\n30,yes\n"), "region,cheated", oracle(), needs_response=False)
    rows, _ = Candidates(people).decide(np.zeros((1, 6)))
    assert rows.tolist() == [[1, 30, 2, 0]]
