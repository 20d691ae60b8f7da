"""What an attack hands over while it runs: the reconstructions it would give if it had to stop now."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

__all__ = ["Snapshot", "on_ladder", "rung_above"]


@dataclass(frozen=True)
class Snapshot:
    """One image for each target, and what had been paid for them.

    images  (T, *input_shape) float32, in the legal range, in the order of the run's targets
    mark    rows answered so far, divided by T (shared rows count for everybody); a white-box method's own steps
    extras  arrays for whoever wants to look closer, named in the method's docstring
    """

    images: np.ndarray
    mark: float
    extras: dict[str, np.ndarray] = field(default_factory=dict)


def rung_above(mark: float) -> int:
    """The first mark of the ladder 100, 300, 1000, 3000, ... that is greater than `mark`.

    >>> [rung_above(mark) for mark in (0, 100, 299, 300, 1e6)]
    [100, 300, 300, 1000, 3000000]
    """
    rung = 100
    while rung <= mark:
        rung = rung * 3 if str(rung).startswith("1") else rung // 3 * 10
    return rung


def on_ladder(mark: int) -> bool:
    """Whether a snapshot is due at `mark`.

    >>> [mark for mark in range(5000) if on_ladder(mark)]
    [100, 300, 1000, 3000]
    """
    return mark > 0 and rung_above(mark - 1) == mark
