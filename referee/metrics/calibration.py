"""What an honest client loses when scores are changed before release: accuracy, calibration, Brier score.

| name here | meaning |
| --- | --- |
| confidence | the largest score of a row; its class is the answer, the first one in a tie |
| calibration_error | expected calibration error over 15 bins of equal width, see below |
| brier | mean over rows of sum_c (score_c - [c is the label])^2, from 0 to 2 |

Expected calibration error (Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017,
equation 3): sum over bins b of n_b / N * |accuracy(b) - mean confidence(b)|, where bin b holds the n_b rows whose
confidence lies in ((b - 1) / 15, b / 15]; a confidence of 0 falls into the first bin.

Rounded scores of a row need not sum to one. They are taken as released: a client sees nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["BINS", "Calibration", "calibration"]

BINS = 15


@dataclass(frozen=True)
class Calibration:
    """Accuracy and expected calibration error in 0..1, Brier score in 0..2."""

    accuracy: float
    calibration_error: float
    brier: float


def calibration(scores: np.ndarray, labels: np.ndarray, *, bins: int = BINS) -> Calibration:
    """Judge released scores (N, C) in [0, 1] against labels (N,) int.

    Raises:
        ValueError: no rows, shapes that don't fit, a score that isn't in [0, 1], or a label that isn't a class.

    >>> calibration(np.array([[0.8, 0.2], [0.8, 0.2]]), np.array([0, 1]))
    Calibration(accuracy=0.5, calibration_error=0.3, brier=0.68)
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if scores.ndim != 2 or 0 in scores.shape or labels.shape != scores.shape[:1] or bins < 1:
        raise ValueError(
            f"scores {scores.shape} must be (N, C), labels {labels.shape} (N,), not empty; bins={bins} >= 1"
        )
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("scores must be finite and in 0..1: pass what was released, not logits")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(f"labels must be whole numbers in 0..{scores.shape[1] - 1}")
    confidence, right = scores.max(axis=1), scores.argmax(axis=1) == labels
    # Edges as fractions k / bins, compared as they are: ceil(confidence * bins) would put 3 / 15 into the fourth bin.
    member = np.searchsorted(np.arange(1, bins) / bins, confidence, side="left")
    gap = np.bincount(member, weights=right - confidence, minlength=bins)
    hot = np.arange(scores.shape[1]) == labels[:, None]
    return Calibration(
        accuracy=float(right.mean()),
        calibration_error=float(np.round(np.abs(gap).sum() / len(labels), 12)),
        brier=float(np.round(np.square(scores - hot).sum(axis=1).mean(), 12)),
    )
