"""Released answers as a table, and files of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from attacker.answers import Answer
from attacker.released import as_table, count_answers, read_answers


def test_every_kind_of_answer_is_a_table() -> None:
    scores = np.array([[0.7, np.nan, 0.2]])
    np.testing.assert_array_equal(as_table(Answer(scores=scores), 3), scores)
    np.testing.assert_array_equal(as_table(Answer(labels=np.array([2])), 3), [[np.nan, np.nan, 1.0]])
    np.testing.assert_array_equal(as_table(Answer(numbers=np.array([[0.1, 0.2]])), 0), [[0.1, 0.2]])
    with pytest.raises(ValueError, match="answered with nothing"):
        as_table(Answer(), 3)


def test_a_file_is_read_back(tmp_path: Path) -> None:
    answers = np.array([[0.7, np.nan], [1.0, 0.0]])
    np.savez(tmp_path / "a.npz", answers=answers)
    np.testing.assert_array_equal(read_answers(tmp_path / "a.npz", 2), answers)
    assert count_answers(tmp_path / "a.npz") == 2


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        (np.ones((2, 3)), "has answers of 3 outputs, the oracle releases 2"),
        (np.array([[np.nan, np.nan]]), "answer 0 releases nothing"),
        (np.array([[2.0, 0.1]]), "values outside 0 to 1"),
        (np.array([[-0.1, 0.1]]), "values outside 0 to 1"),
        (np.ones(3), "write numbers"),
        (np.array([["a", "b"]]), "write numbers"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, answers: np.ndarray, sentence: str) -> None:
    np.savez(tmp_path / "a.npz", answers=answers)
    with pytest.raises(ValueError, match=sentence):
        read_answers(tmp_path / "a.npz", 2)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file"):
        read_answers(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "scores.npz", scores=np.ones((2, 2)))
    np.save(tmp_path / "array.npy", np.ones((2, 2)))
    for name in ("text.npz", "scores.npz", "array.npy"):
        with pytest.raises(ValueError, match="with an array `answers`"):
            read_answers(tmp_path / name)
