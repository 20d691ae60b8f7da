"""Accuracy, expected calibration error and Brier score against answers known by hand."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from referee.metrics import calibration as module
from referee.metrics.calibration import BINS, calibration


def test_the_example_of_the_docstring():
    assert doctest.testmod(module).failed == 0


def test_by_hand():
    scores = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    got = calibration(scores, np.array([0, 1, 0, 1]))
    assert got.accuracy == 0.75
    # Bins: two rows at 0.9 (one right), one at 0.6 (right), one at 0.7 (right).
    assert got.calibration_error == pytest.approx(2 / 4 * 0.4 + 1 / 4 * 0.4 + 1 / 4 * 0.3)
    assert got.brier == pytest.approx((0.02 + 1.62 + 0.32 + 0.18) / 4)


def test_perfect_and_worst():
    sure = np.eye(3)
    best = calibration(sure, np.arange(3))
    assert (best.accuracy, best.calibration_error, best.brier) == (1, 0, 0)
    worst = calibration(sure, np.array([1, 2, 0]))
    assert (worst.accuracy, worst.calibration_error, worst.brier) == (0, 1, 2)


def calibrated(rows: int, sharpen: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from scores (N, 4), and these scores with their logits times `sharpen`."""
    random = np.random.default_rng(3)
    logits = random.normal(size=(rows, 4))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (random.random((rows, 1)) > np.cumsum(true, axis=1)).sum(1).clip(max=3)
    told = np.exp(sharpen * logits) / np.exp(sharpen * logits).sum(1, keepdims=True)
    return told, labels


def test_labels_drawn_from_the_scores_are_calibrated_and_sharper_scores_are_not():
    honest, boasting = calibration(*calibrated(20_000, 1.0)), calibration(*calibrated(20_000, 3.0))
    assert honest.accuracy == boasting.accuracy
    assert honest.calibration_error < 0.02
    assert boasting.calibration_error > 0.15
    assert boasting.brier > honest.brier + 0.05


def test_every_edge_belongs_to_the_bin_below_it():
    """Pairs of rows at k / 15 and just above it, the first right and the second wrong: two bins keep them apart."""
    edges = np.arange(5, BINS + 1) / BINS
    for edge in edges[:-1]:
        rest = 1 - edge
        scores = np.array([[edge, *[rest / 10] * 10], [edge + 1e-9, *[(rest - 1e-9) / 10] * 10]])
        got = calibration(scores, np.array([0, 1]))
        # In two bins: ((1 - edge) + edge) / 2. In one bin the two gaps would cancel: |1 - 2 edge| / 2.
        assert got.calibration_error == pytest.approx(0.5, abs=1e-6)


def test_rounding_to_nothing_costs_the_answer():
    scores = np.array([[0.03, 0.04, *[0.93 / 31] * 31], [0.02, 0.08, *[0.9 / 31] * 31]])
    labels = np.array([1, 1])
    assert calibration(scores, labels).accuracy == 1
    rounded = calibration(np.round(scores, 1), labels)
    assert rounded.accuracy == 0.5  # all zero: the first class is the answer; 0.08 still stands out
    assert rounded.calibration_error == pytest.approx((0 + 0.9) / 2)


@pytest.mark.parametrize(
    ("scores", "labels", "says"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), "not empty"),
        (np.zeros((2, 3)), np.zeros(3, int), "labels"),
        (np.array([[2.0, -1.0]]), np.array([0]), "not logits"),
        (np.array([[np.nan, 1.0]]), np.array([0]), "finite"),
        (np.array([[0.5, 0.5]]), np.array([2]), "0..1"),
        (np.array([[0.5, 0.5]]), np.array([-1]), "0..1"),
        (np.array([[0.5, 0.5]]), np.array([0.5]), "whole"),
    ],
)
def test_bad_input_is_refused(scores, labels, says):
    with pytest.raises(ValueError, match=says):
        calibration(scores, labels)
