"""What an honest client gets from released answers: accuracy, top-5, calibration, agreement with another release.

| name here | meaning |
| --- | --- |
| answer | the class that a client reads off: the label, or the first of the largest released scores |
| right | the answer is the photo's class |
| among_five | the class is among the five largest of the released scores; unknown where only a label is released |
| calibration_error | see `referee.metrics.calibration`; what is withheld counts as 0; unknown for a label |

With five classes or fewer, all of whose scores are released, everything is among the first five: it is said as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oracle_server.threat_model import Released
from referee.metrics.calibration import calibration

__all__ = ["Utility", "utility"]

_FIVE = 5


@dataclass(frozen=True, eq=False)
class Utility:
    """Of N photos: answers (N,) int, right (N,) bool, among_five (N,) bool or None, and a calibration error or None."""

    answers: np.ndarray
    right: np.ndarray
    among_five: np.ndarray | None
    calibration_error: float | None

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())

    @property
    def top5(self) -> float | None:
        return None if self.among_five is None else float(self.among_five.mean())

    def agreement(self, other: Utility) -> float:
        """The share of photos to which both give the same answer."""
        return float((self.answers == other.answers).mean())


def utility(released: Released, labels: np.ndarray, classes: int) -> Utility:
    """Judge what was released for N photos of the classes `labels` (N,) int, of 0 .. `classes` - 1.

    >>> utility(Released(labels=np.array([1, 0])), np.array([1, 1]), 2).accuracy
    0.5
    """
    labels = np.asarray(labels)
    if released.labels is not None:
        return Utility(released.labels, released.labels == labels, None, None)
    if released.scores is not None:
        scores = released.scores
        order = np.argsort(-scores, axis=1, kind="stable")  # as release() orders them
    elif released.indices is not None and released.values is not None:
        order = released.indices
        scores = np.zeros((len(order), classes))
        np.put_along_axis(scores, order, released.values, axis=1)
    else:
        raise ValueError("numbers have no class: utility is that of a classifier")
    among = (order[:, :_FIVE] == labels[:, None]).any(axis=1)
    # Rounded to a coarse step, a score can lie above 1.
    error = calibration(np.clip(scores, 0.0, 1.0), labels).calibration_error
    return Utility(order[:, 0], order[:, 0] == labels, among, error)
