"""How well an attribute was inferred: accuracy, precision and recall of one level, and their means over samples.

| name here | meaning |
| --- | --- |
| positive | the level that is sensitive: "yes", or the rarer one |
| accuracy | share of people whose level was guessed right |
| precision | share of those guessed positive who are; unknown where nobody was |
| recall | share of those who are positive who were guessed so; unknown where nobody is |

An unknown value is NaN in arrays and None in tables: a precision of nobody is not zero. Guesses are arrays (S, N) for S
models, each grown on a sample of its own, and N people; `who` (S, N) bool says which of the people count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["MARKS", "Mean", "Rates", "advantage", "mean_over", "positive_level", "rates", "share_of_ideal"]

MARKS = ("accuracy", "precision", "recall")
_YES = ("yes", "true")
_NORMAL = 1.959964  # the two-sided 95% point of the normal distribution


@dataclass(frozen=True, eq=False)
class Rates:
    """Of S samples, each (S,) float64 in [0, 1]; NaN where there is none."""

    accuracy: np.ndarray
    precision: np.ndarray
    recall: np.ndarray


@dataclass(frozen=True)
class Mean:
    """A mean over samples, with the standard error of the mean; `error` is None for a single sample.

    `samples` are those that have a value. Samples of one data set overlap, so the error says how well this many of them
    tell the mean over all of them, not how the mean would move with other people.
    """

    value: float
    error: float | None
    samples: int

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """The 95% interval of a normal mean, or (None, None) for a single sample."""
        if self.error is None:
            return None, None
        return self.value - _NORMAL * self.error, self.value + _NORMAL * self.error


def rates(guess: np.ndarray, truth: np.ndarray, who: np.ndarray, positive: int) -> Rates:
    """Rates of each sample.

    Args:
        guess: (S, N) codes of levels.
        truth: (N,) the true ones.
        who: (S, N) bool; a sample in which nobody counts has NaN for everything.
        positive: code of the sensitive level.

    Raises:
        ValueError: shapes that don't fit.

    >>> found = rates(np.array([[1, 1, 0, 0]]), np.array([1, 0, 1, 0]), np.ones((1, 4), bool), 1)
    >>> found.accuracy.item(), found.precision.item(), found.recall.item()
    (0.5, 0.5, 0.5)
    """
    guess, truth, who = np.asarray(guess), np.asarray(truth), np.asarray(who, dtype=bool)
    if guess.ndim != 2 or guess.shape != who.shape or truth.shape != guess.shape[1:]:
        raise ValueError(f"guess {guess.shape} and who {who.shape} must be (S, N), truth {truth.shape} must be (N,)")
    called, real = (guess == positive) & who, (truth == positive) & who
    hits = (called & real).sum(axis=1)
    return Rates(
        _share(((guess == truth) & who).sum(axis=1), who.sum(axis=1)),
        _share(hits, called.sum(axis=1)),
        _share(hits, real.sum(axis=1)),
    )


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    shares = np.full(len(whole), np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares


def mean_over(values: np.ndarray) -> Mean | None:
    """The mean of values (S,) over the samples that have one; None where none has."""
    values = np.asarray(values, dtype=np.float64)
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    error = float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else None
    return Mean(float(known.mean()), error, len(known))


def advantage(ours: float | None, baseline: float | None) -> float | None:
    """What an attack adds to the baseline. A baseline that calls nobody positive has no precision: it counts as 0, as
    the paper counts it.
    """
    return None if ours is None else ours - (baseline or 0.0)


def share_of_ideal(ours: float | None, ideal: float | None) -> float | None:
    """An attack as a share of the ideal adversary, not cropped; None where the ideal has nothing to share."""
    return None if ours is None or not ideal else ours / ideal


def positive_level(levels: Sequence[str], shares: Sequence[float]) -> int:
    """The code of the level that is sensitive: one that says yes, or else the rarest of `shares` (L,)."""
    yes = [code for code, level in enumerate(levels) if level.strip().lower() in _YES]
    return yes[0] if len(yes) == 1 else int(np.argmin(shares))
