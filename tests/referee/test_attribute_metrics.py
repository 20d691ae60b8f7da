"""Accuracy, precision, recall and their means on arrays whose answer is counted by hand."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from referee.metrics import attributes
from referee.metrics.attributes import Mean, advantage, mean_over, positive_level, rates, share_of_ideal

TRUTH = np.array([1, 1, 1, 0, 0, 0, 0, 0])
ALL = np.ones((1, 8), dtype=bool)


def one(guess: list[int], who: np.ndarray = ALL, positive: int = 1) -> list[float]:
    found = rates(np.array([guess]), TRUTH, who, positive)
    return [found.accuracy.item(), found.precision.item(), found.recall.item()]


def test_counted_by_hand():
    assert one([1, 1, 0, 1, 0, 0, 0, 0]) == [6 / 8, 2 / 3, 2 / 3]
    assert one([1, 1, 1, 0, 0, 0, 0, 0]) == [1, 1, 1]
    assert one([0, 0, 0, 1, 1, 1, 1, 1]) == [0, 0, 0]
    assert one([1, 1, 0, 1, 0, 0, 0, 0], positive=0) == [6 / 8, 4 / 5, 4 / 5]
    assert one([2, 1, 0, 2, 0, 0, 0, 0]) == [5 / 8, 1, 1 / 3]  # a third level is neither


def test_where_nobody_is_called_positive_there_is_no_precision():
    accuracy, precision, recall = one([0] * 8)
    assert (accuracy, recall) == (5 / 8, 0)
    assert np.isnan(precision)


def test_only_those_who_count_are_counted():
    who = np.array([[True, False, False, True, True, False, False, False]])
    assert one([1, 0, 0, 1, 0, 1, 1, 1], who) == [2 / 3, 1 / 2, 1]
    assert np.isnan(one([1] * 8, ~ALL)).all()
    outside = one([1, 0, 0, 1, 0, 1, 1, 1], ~who)
    assert outside == [0, 0, 0]  # the same guesses for the others: everything is wrong


def test_doctests():
    assert doctest.testmod(attributes).failed == 0


@pytest.mark.parametrize(
    ("guess", "who"), [(np.zeros((1, 7)), ALL), (np.zeros(8), ALL), (np.zeros((2, 8)), ALL)], ids=["N", "axes", "S"]
)
def test_shapes_that_do_not_fit(guess, who):
    with pytest.raises(ValueError, match="must be"):
        rates(guess, TRUTH, who, 1)


def test_the_mean_leaves_out_unknown_samples_and_says_how_many_there_were():
    mean = mean_over(np.array([0.2, np.nan, 0.4]))
    assert mean is not None
    assert (mean.value, mean.samples) == (pytest.approx(0.3), 2)
    assert mean.error == pytest.approx(0.1)  # standard deviation sqrt(0.02), over sqrt(2)
    low, high = mean.interval
    assert (low, high) == (pytest.approx(0.3 - 0.196, abs=1e-4), pytest.approx(0.3 + 0.196, abs=1e-4))
    assert mean_over(np.array([np.nan])) is None
    assert mean_over(np.array([0.5])) == Mean(0.5, None, 1)
    assert Mean(0.5, None, 1).interval == (None, None)


def test_the_error_of_a_mean_covers_the_truth_about_as_often_as_it_says():
    """And with a tenth of the error it does not: the check can fail."""
    drawn = np.random.default_rng(0).normal(0.3, 0.1, (400, 50))
    means = [mean_over(row) for row in drawn]
    apart = np.array([abs(mean.value - 0.3) / mean.error for mean in means if mean is not None and mean.error])
    assert 0.92 < (apart < 1.96).mean() < 0.98
    assert (apart < 0.196).mean() < 0.3


def test_advantage_and_share():
    assert advantage(0.9, 0.75) == pytest.approx(0.15)
    assert advantage(0.9, None) == 0.9  # the baseline calls nobody positive
    assert advantage(None, 0.5) is None
    assert share_of_ideal(0.6, 0.8) == pytest.approx(0.75)
    assert share_of_ideal(0.9, 0.6) == pytest.approx(1.5)  # not cropped
    assert share_of_ideal(0.5, None) is None
    assert share_of_ideal(0.5, 0.0) is None


def test_the_sensitive_level_says_yes_or_is_the_rarest():
    assert positive_level(("no", "yes"), (0.2, 0.8)) == 1
    assert positive_level(("Yes", "No", "not asked"), (0.5, 0.3, 0.2)) == 0
    assert positive_level(("1", "2"), (0.4, 0.6)) == 0
    assert positive_level(("1", "2"), (0.6, 0.4)) == 1
