"""The files of a line-up: what they hold, how a filled sheet is scored, and what is wrong with one."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from referee.lineups import score_answers, write_lineups
from referee.metrics.lineup import (
    NOT_PRESENT,
    LineUps,
    make_lineups,
)
from tests.referee.lineup_world import OWNERS, TRAINING, VALIDATION, world


def fill(folder: Path, answers: list[str], names: list[str] | None = None) -> None:
    names = names or [f"{number:03d}" for number in range(1, len(answers) + 1)]
    lines = ["question,answer", *(f"{name},{given}" for name, given in zip(names, answers, strict=True))]
    (folder / "answers.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def small() -> LineUps:
    photos, faces = world()
    return make_lineups(faces[:10], np.arange(10), photos, OWNERS, TRAINING, VALIDATION, seed=0, per_target=1)


@pytest.fixture
def folder(tmp_path, small) -> Path:
    write_lineups(tmp_path / "lineups", small, "Credit: the laboratory.")
    return tmp_path / "lineups"


def test_files_hold_the_questions_and_no_answer(folder, small):
    names = sorted(path.name for path in folder.iterdir())
    pictures = [f"question_{number:03d}.png" for number in range(1, 11)]
    assert names == sorted(["README.txt", "answers.csv", "key.csv", *pictures])
    assert "Credit: the laboratory." in (folder / "README.txt").read_text()
    assert "private" in (folder / "README.txt").read_text()
    with (folder / "key.csv").open() as file:
        key = list(csv.DictReader(file))
    assert [int(row["answer"]) - 1 for row in key] == small.answer.tolist()
    assert [int(row["person"]) for row in key] == small.target.tolist()
    assert [row["control"] == "1" for row in key] == small.is_control.tolist()
    assert (folder / "answers.csv").read_text().splitlines()[:2] == ["question,answer", "001,"]


def test_a_page_shows_the_query_and_the_photos_in_order(folder, small):
    control = int(np.flatnonzero(small.is_control)[0])
    with Image.open(folder / f"question_{control + 1:03d}.png") as image:
        page = np.asarray(image, dtype=float) / 255
    height, width = 16, 12
    shown = [
        page[12 : 12 + height, left : left + width] for left in (12, *(36 + 12 + 24 * place for place in range(5)))
    ]
    meant = [small.queries[control, 0], *small.choices[control, :, 0]]
    for picture, photo in zip(shown, meant, strict=True):
        small_again = picture.reshape(8, 2, 6, 2).mean(axis=(1, 3))
        fits = [np.corrcoef(small_again.ravel(), other.ravel())[0, 1] for other in meant]
        assert max(fits) == np.corrcoef(small_again.ravel(), photo.ravel())[0, 1] > 0.9


def test_filled_answers_are_scored(folder, small):
    right = [str(number + 1) for number in small.answer]
    fill(folder, right)
    found = score_answers(folder)
    assert (found.overall.value, found.identified.value, found.controls.value) == (1, 1, 1)
    wrong = int(np.flatnonzero(~small.is_control & (small.answer != NOT_PRESENT))[0])
    fill(folder, [*right[:wrong], "6", *right[wrong + 1 :]], [str(number) for number in range(1, 11)])
    found = score_answers(folder)
    assert found.overall.value == pytest.approx(8 / 9)
    assert found.excluded.value == 1


def test_what_a_spreadsheet_changes_is_understood(folder, small):
    lines = ["question,answer", *(f"{place + 1}, {number + 1}" for place, number in enumerate(small.answer)), ","]
    (folder / "answers.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert score_answers(folder).overall.value == 1


def test_answers_that_cannot_be_scored(folder):
    with pytest.raises(ValueError, match=r"no answer to 001, 002.*1 to 6"):
        score_answers(folder)
    fill(folder, ["1"] * 9)
    with pytest.raises(ValueError, match="no answer to 010"):
        score_answers(folder)
    fill(folder, ["1"] * 8 + ["7", "x"])
    with pytest.raises(ValueError, match=r"009, 010 must be a number 1 to 6"):
        score_answers(folder)
    fill(folder, ["1"] * 11)
    with pytest.raises(ValueError, match=r"not in key\.csv: 011"):
        score_answers(folder)
    fill(folder, ["1"] * 11, [f"{number:03d}" for number in (*range(1, 11), 1)])
    with pytest.raises(ValueError, match="twice"):
        score_answers(folder)
    (folder / "answers.csv").write_text("name;answer\n")
    with pytest.raises(ValueError, match="must begin with the line question,answer"):
        score_answers(folder)
    (folder / "answers.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="UTF-8"):
        score_answers(folder)
    (folder / "answers.csv").unlink()
    with pytest.raises(ValueError, match="missing"):
        score_answers(folder)


def test_a_changed_key_is_refused(folder):
    fill(folder, ["1"] * 10)
    key = folder / "key.csv"
    key.write_text(key.read_text().replace("001,", "001,9", 1))
    with pytest.raises(ValueError, match="was changed"):
        score_answers(folder)


def test_filled_answers_are_never_overwritten(folder, small):
    fill(folder, ["1"] * 10)
    with pytest.raises(ValueError, match="another folder"):
        write_lineups(folder, small, "Credit.")
    assert (folder / "answers.csv").read_text().count(",1") == 10
    with pytest.raises(ValueError, match="grey"):
        write_lineups(folder / "new", replace(small, photos=np.zeros((1, 3, 8, 6))), "Credit.")
    assert not (folder / "new").exists()
