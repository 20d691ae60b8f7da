"""Released answers as a table (N, K), and files of them that are handed over with --given."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from attacker.answers import Answer

__all__ = ["as_table", "count_answers", "read_answers", "write_answers"]

_MOST = 1.5  # what a 1 may have been rounded to


def as_table(answer: Answer, classes: int) -> np.ndarray:
    """What N answers released, (N, K) float64, NaN where something was withheld. A label is a score of 1 with all
    others withheld; features are K numbers between 0 and 1.
    """
    if answer.scores is not None:
        return np.asarray(answer.scores, np.float64)
    if answer.numbers is not None:
        return np.asarray(answer.numbers, np.float64).reshape(len(answer.numbers), -1)
    if answer.labels is None:
        raise ValueError("the oracle answered with nothing: use a key that releases scores, labels or features")
    table = np.full((len(answer.labels), classes), np.nan)
    table[np.arange(len(table)), answer.labels] = 1.0
    return table


def count_answers(path: Path) -> int:
    """How many answers a file holds; `ValueError` as for `read_answers`."""
    return len(_opened(path))


def read_answers(path: Path, outputs: int | None = None) -> np.ndarray:
    """The answers (N, K) float64 of a .npz file with the one array `answers`, NaN where a score was withheld.

    Raises `ValueError` with one sentence: no such file or array, another number of outputs than `outputs`, an answer
    without any number in it, a number outside [0, 1].
    """
    answers = _opened(path).astype(np.float64)
    if outputs is not None and answers.shape[1] != outputs:
        raise ValueError(f"{path} has answers of {answers.shape[1]} outputs, the oracle releases {outputs}")
    released = ~np.isnan(answers)
    if not released.any(1).all():
        raise ValueError(f"{path}: answer {np.flatnonzero(~released.any(1))[0]} releases nothing: leave it out")
    if not ((answers[released] >= 0) & (answers[released] <= _MOST)).all():
        raise ValueError(f"{path} holds values outside 0 to 1: answers are scores or features as they were released")
    return np.asarray(answers)


def write_answers(answers: np.ndarray, path: Path) -> Path:
    """Write answers (N, K), NaN where a score was withheld, to a file that `read_answers` reads; in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez(part, answers=answers)
    return part.replace(path)


def _opened(path: Path) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as file:
            answers = file["answers"]
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}: name a .npz file of released answers with --given") from None
    except (KeyError, TypeError, AttributeError, ValueError, OSError, EOFError, zipfile.BadZipFile):
        raise ValueError(f"{path} is no .npz file with an array `answers`: write one with numpy.savez") from None
    if answers.ndim != 2 or not answers.size or answers.dtype.kind not in "fiu":
        raise ValueError(f"{path}: answers has shape {answers.shape}: write numbers (N, K), NaN where one was withheld")
    return np.asarray(answers)
